//! Stores for tests: in memory, and one that fails when told to.
//!
//! Built only for tests of this crate and with the feature `testing`. Must never be reachable from
//! a program that ships.

use std::{ops::Range, path::PathBuf, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, stream::BoxStream};
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, UploadPart, memory::InMemory,
    path::Path,
};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use crate::{
    Backend, ReadConfig,
    backend::{Inner, StoreKind, WriteSettings},
    keys::Prefix,
};

/// Parts of uploads to stores in memory: small, so that tests reach the second part.
pub const MEMORY_PART_BYTES: usize = 1024;

/// A store in memory. Must be called within a tokio runtime.
pub fn memory() -> Backend {
    Backend {
        inner: Arc::new(Inner {
            store: Arc::new(InMemory::new()),
            prefix: Prefix::default(),
            kind: StoreKind::Memory,
            reads: ReadConfig::default(),
            writes: WriteSettings {
                part_bytes: MEMORY_PART_BYTES,
                parts_in_flight: 2,
                max_parts: 1000,
                ..WriteSettings::default()
            },
            list_blocks_concurrency: 1,
            local_root: None,
            runtime: tokio::runtime::Handle::current(),
        }),
    }
}

/// The same store, with faults to be injected. Blocking reads of local files pass through it too.
pub fn faulty(backend: &Backend) -> (Backend, Faults) {
    let faults = Faults::default();
    let inner = &backend.inner;
    let store = FaultyStore {
        inner: Arc::clone(&inner.store),
        faults: faults.clone(),
    };
    let backend = Backend {
        inner: Arc::new(Inner {
            store: Arc::new(store),
            prefix: inner.prefix.clone(),
            kind: inner.kind,
            reads: inner.reads.clone(),
            writes: inner.writes.clone(),
            list_blocks_concurrency: inner.list_blocks_concurrency,
            local_root: None::<PathBuf>,
            runtime: inner.runtime.clone(),
        }),
    };
    (backend, faults)
}

/// What is asked of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Reading an object or a range.
    Read,
    /// Writing an object, or beginning, feeding or completing an upload.
    Write,
    /// Listing.
    List,
    /// Deleting.
    Delete,
}

/// What happens instead.
#[derive(Debug, Clone)]
pub enum Effect {
    /// The request fails.
    Fail,
    /// The request is answered after this long, by tokio's clock.
    Delay(Duration),
    /// The request waits until the gate is opened.
    Wait(Gate),
    /// Of a write only this many bytes arrive, and it fails.
    PartialWrite(usize),
}

/// A fault: which requests it meets, how often, and what it does.
#[derive(Debug, Clone)]
pub struct Fault {
    /// Only these; none: all.
    pub operation: Option<Operation>,
    /// Only keys that contain this.
    pub key_contains: String,
    /// How many requests it meets; none: all, until [`Faults::heal`].
    pub times: Option<usize>,
    /// What it does.
    pub effect: Effect,
}

/// A gate that requests wait at.
#[derive(Debug, Clone)]
pub struct Gate {
    arrived: Arc<Semaphore>,
    open: Arc<Semaphore>,
}

impl Default for Gate {
    fn default() -> Self {
        Self {
            arrived: Arc::new(Semaphore::new(0)),
            open: Arc::new(Semaphore::new(0)),
        }
    }
}

impl Gate {
    /// A closed gate.
    pub fn new() -> Self {
        Self::default()
    }

    /// Waits until a further request stands at the gate.
    pub async fn arrived(&self) {
        if let Ok(permit) = self.arrived.acquire().await {
            permit.forget();
        }
    }

    /// Lets every request through, now and later.
    pub fn open(&self) {
        self.open.add_permits(Semaphore::MAX_PERMITS / 2);
    }

    async fn pass(&self) {
        self.arrived.add_permits(1);
        if let Ok(permit) = self.open.acquire().await {
            drop(permit);
        }
    }
}

/// Injects faults into a store and tells what was asked of it.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    state: Arc<Mutex<FaultState>>,
}

#[derive(Debug, Default)]
struct FaultState {
    faults: Vec<Fault>,
    requests: Vec<(Operation, String)>,
    crash: Option<Crash>,
}

#[derive(Debug, Clone, Copy)]
struct Crash {
    /// Requests until then.
    after: usize,
    answer_lost: bool,
}

impl Faults {
    /// Adds a fault; of several that meet a request the one that was added first counts.
    pub fn inject(&self, fault: Fault) {
        self.state.lock().faults.push(fault);
    }

    /// The next `times` requests fail, whatever they are.
    pub fn fail_next(&self, times: usize) {
        self.fail_next_on(None, "", times);
    }

    /// All requests of this operation, on keys that contain this, fail.
    pub fn fail_on(&self, operation: Operation, key_contains: &str) {
        self.inject(Fault {
            operation: Some(operation),
            key_contains: key_contains.to_owned(),
            times: None,
            effect: Effect::Fail,
        });
    }

    /// The next `times` requests of this operation, on keys that contain this, fail.
    pub fn fail_next_on(
        &self,
        operation: impl Into<Option<Operation>>,
        key_contains: &str,
        times: usize,
    ) {
        self.inject(Fault {
            operation: operation.into(),
            key_contains: key_contains.to_owned(),
            times: Some(times),
            effect: Effect::Fail,
        });
    }

    /// Every request fails until [`Faults::heal`].
    pub fn fail_all(&self) {
        self.inject(Fault {
            operation: None,
            key_contains: String::new(),
            times: None,
            effect: Effect::Fail,
        });
    }

    /// Lets `requests` more pass; after them all fail until [`Faults::heal`], as if the caller had
    /// died. With `answer_lost` the first of these, if it is a write, is done and fails all the
    /// same.
    pub fn crash_after(&self, requests: usize, answer_lost: bool) {
        self.state.lock().crash = Some(Crash {
            after: requests,
            answer_lost,
        });
    }

    /// Removes all faults.
    pub fn heal(&self) {
        let mut state = self.state.lock();
        state.faults.clear();
        state.crash = None;
    }

    /// The requests so far, with their keys; a list has its prefix.
    pub fn requests(&self) -> Vec<(Operation, String)> {
        self.state.lock().requests.clone()
    }

    /// How many requests of this operation there were on keys that contain this.
    pub fn count(&self, operation: Operation, key_contains: &str) -> usize {
        let state = self.state.lock();
        state
            .requests
            .iter()
            .filter(|(asked, key)| *asked == operation && key.contains(key_contains))
            .count()
    }

    /// Forgets the requests so far.
    pub fn forget_requests(&self) {
        self.state.lock().requests.clear();
    }

    fn meet(&self, operation: Operation, key: &str) -> Option<Effect> {
        let mut state = self.state.lock();
        state.requests.push((operation, key.to_owned()));
        if let Some(crash) = &mut state.crash {
            if crash.after == 0 {
                let lost = std::mem::take(&mut crash.answer_lost);
                return Some(match operation {
                    Operation::Write if lost => Effect::PartialWrite(usize::MAX),
                    _ => Effect::Fail,
                });
            }
            crash.after -= 1;
        }
        let index = state.faults.iter().position(|fault| {
            fault.operation.is_none_or(|wanted| wanted == operation)
                && key.contains(&fault.key_contains)
        })?;
        let fault = &mut state.faults[index];
        let effect = fault.effect.clone();
        if let Some(times) = &mut fault.times {
            *times -= 1;
            if *times == 0 {
                state.faults.remove(index);
            }
        }
        Some(effect)
    }

    /// Waits or fails as told; answers how many bytes of a write arrive before it fails.
    async fn apply(
        &self,
        operation: Operation,
        key: &str,
    ) -> Result<Option<usize>, object_store::Error> {
        match self.meet(operation, key) {
            None => Ok(None),
            Some(Effect::Fail) => Err(injected(key)),
            Some(Effect::Delay(delay)) => {
                tokio::time::sleep(delay).await;
                Ok(None)
            }
            Some(Effect::Wait(gate)) => {
                gate.pass().await;
                Ok(None)
            }
            Some(Effect::PartialWrite(bytes)) => Ok(Some(bytes)),
        }
    }
}

fn injected(key: &str) -> object_store::Error {
    object_store::Error::Generic {
        store: "FaultyStore",
        source: format!("injected fault at '{key}'").into(),
    }
}

#[derive(Debug)]
struct FaultyStore {
    inner: Arc<dyn ObjectStore>,
    faults: Faults,
}

impl std::fmt::Display for FaultyStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "FaultyStore({})", self.inner)
    }
}

fn prefix_text(prefix: Option<&Path>) -> String {
    prefix.map(ToString::to_string).unwrap_or_default()
}

#[async_trait]
impl ObjectStore for FaultyStore {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> object_store::Result<PutResult> {
        match self
            .faults
            .apply(Operation::Write, location.as_ref())
            .await?
        {
            None => self.inner.put_opts(location, payload, options).await,
            Some(bytes) => {
                let whole = Bytes::from(Vec::from_iter(payload.iter().flatten().copied()));
                let part = whole.slice(..bytes.min(whole.len()));
                self.inner.put_opts(location, part.into(), options).await?;
                Err(injected(location.as_ref()))
            }
        }
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        self.faults
            .apply(Operation::Write, location.as_ref())
            .await?;
        Ok(Box::new(FaultyUpload {
            inner: self.inner.put_multipart_opts(location, options).await?,
            faults: self.faults.clone(),
            key: location.to_string(),
        }))
    }

    async fn get_opts(
        &self,
        location: &Path,
        options: GetOptions,
    ) -> object_store::Result<GetResult> {
        self.faults
            .apply(Operation::Read, location.as_ref())
            .await?;
        self.inner.get_opts(location, options).await
    }

    async fn get_ranges(
        &self,
        location: &Path,
        ranges: &[Range<u64>],
    ) -> object_store::Result<Vec<Bytes>> {
        self.faults
            .apply(Operation::Read, location.as_ref())
            .await?;
        self.inner.get_ranges(location, ranges).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, object_store::Result<Path>>,
    ) -> BoxStream<'static, object_store::Result<Path>> {
        let faults = self.faults.clone();
        let met = locations.then(move |location| {
            let faults = faults.clone();
            async move {
                let location = location?;
                faults.apply(Operation::Delete, location.as_ref()).await?;
                Ok(location)
            }
        });
        self.inner.delete_stream(met.boxed())
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        let faults = self.faults.clone();
        let key = prefix_text(prefix);
        let listed = self.inner.list(prefix);
        let met = async move {
            match faults.apply(Operation::List, &key).await {
                Ok(_) => listed,
                Err(error) => futures::stream::once(async move { Err(error) }).boxed(),
            }
        };
        futures::stream::once(met).flatten().boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        self.faults
            .apply(Operation::List, &prefix_text(prefix))
            .await?;
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(
        &self,
        from: &Path,
        to: &Path,
        options: CopyOptions,
    ) -> object_store::Result<()> {
        self.faults.apply(Operation::Write, to.as_ref()).await?;
        self.inner.copy_opts(from, to, options).await
    }
}

#[derive(Debug)]
struct FaultyUpload {
    inner: Box<dyn MultipartUpload>,
    faults: Faults,
    key: String,
}

#[async_trait]
impl MultipartUpload for FaultyUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let part = self.inner.put_part(data);
        let (faults, key) = (self.faults.clone(), self.key.clone());
        Box::pin(async move {
            if faults.apply(Operation::Write, &key).await?.is_some() {
                return Err(injected(&key));
            }
            part.await
        })
    }

    async fn complete(&mut self) -> object_store::Result<PutResult> {
        self.faults.apply(Operation::Write, &self.key).await?;
        self.inner.complete().await
    }

    async fn abort(&mut self) -> object_store::Result<()> {
        self.inner.abort().await
    }
}
