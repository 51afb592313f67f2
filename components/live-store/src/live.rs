//! What is live: traces still receiving spans, traces waiting for their block, and both as columns.

mod columns;
mod cut;
mod head;
mod tenant;
mod traces;
mod visible;

pub(crate) use cut::{BlockCut, BlockCutReason, TraceCut};
pub(crate) use head::{CutBlock, CutTrace};
pub(crate) use tenant::{Admitted, AllColumns, Cut, Overflow, PushLimits, Sizes, Tenant};
