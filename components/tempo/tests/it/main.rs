//! The binary as its users meet it: a process, its ports, its data folder.

mod cli;
mod crash;
mod golden;
mod journey;
mod support;
