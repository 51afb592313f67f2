//! Attribute keys of one scope: which column an attribute goes to.

use std::sync::Arc;

use super::{interner::Interner, wire::is_same};

/// Where the attributes of a key are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Route {
    /// Among the generic attributes.
    Generic,
    /// In the service name of the resource, when it is text.
    ServiceName,
    /// In a column of its own, when the type fits; its position among the scope's.
    Dedicated(u16),
}

/// Keys that do not go to the generic attributes.
pub(super) type Routes = Vec<(Arc<str>, Route)>;

#[derive(Debug, Clone, Copy)]
struct Info {
    route: Route,
    /// Code in the dictionary of generic keys, [`NO_CODE`] until one is stored there.
    code: u32,
    /// The key that followed this one last time.
    next: u32,
    /// Where its text stands.
    start: u32,
    length: u32,
}

const NO_CODE: u32 = u32::MAX;

/// The keys that a row group has met.
#[derive(Debug)]
pub(super) struct Keys {
    routes: Routes,
    known: Interner,
    infos: Vec<Info>,
    /// Generic keys by code: what the dictionary page holds.
    generic: Vec<u32>,
    /// First key of an owner last time.
    first: u32,
}

/// Where the walk over an owner's keys stands. Owners of one kind have the same keys in the same
/// order, so the next key is guessed and compared before anything is hashed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cursor(u32);

impl Cursor {
    /// Before the first key.
    pub(super) const START: Self = Self(NO_CODE);
}

impl Keys {
    pub(super) fn new(routes: Routes) -> Self {
        Self {
            routes,
            known: Interner::default(),
            infos: Vec::new(),
            generic: Vec::new(),
            first: NO_CODE,
        }
    }

    /// The number of a key.
    #[inline]
    pub(super) fn find(&mut self, key: &[u8], cursor: &mut Cursor) -> u32 {
        let guess = match cursor.0 {
            NO_CODE => self.first,
            last => self.infos[last as usize].next,
        };
        let found = match self.infos.get(guess as usize) {
            Some(info) if self.is_key(info, key) => guess,
            _ => self.look_up(key, *cursor),
        };
        cursor.0 = found;
        found
    }

    #[inline]
    fn is_key(&self, info: &Info, key: &[u8]) -> bool {
        info.length as usize == key.len() && {
            let start = info.start as usize;
            is_same(&self.known.plain()[start..start + key.len()], key)
        }
    }

    #[inline(never)]
    fn look_up(&mut self, key: &[u8], cursor: Cursor) -> u32 {
        let found = self.known.intern(key);
        if found as usize == self.infos.len() {
            self.learn();
        }
        match cursor.0 {
            NO_CODE => self.first = found,
            last => self.infos[last as usize].next = found,
        }
        found
    }

    #[cold]
    fn learn(&mut self) {
        let number = self.infos.len() as u32;
        let key = self.known.bytes(number);
        let route = self
            .routes
            .iter()
            .find(|(name, _)| name.as_bytes() == key)
            .map_or(Route::Generic, |&(_, route)| route);
        let place = self.known.place(number);
        self.infos.push(Info {
            route,
            code: NO_CODE,
            next: NO_CODE,
            start: place.start as u32,
            length: place.len() as u32,
        });
    }

    /// Where a key's attributes go.
    #[inline]
    pub(super) fn route(&self, key: u32) -> Route {
        self.infos[key as usize].route
    }

    /// The code of a key among the generic ones.
    #[inline]
    pub(super) fn generic_code(&mut self, key: u32) -> u32 {
        let info = &mut self.infos[key as usize];
        if info.code == NO_CODE {
            info.code = self.generic.len() as u32;
            self.generic.push(key);
        }
        info.code
    }

    /// The generic keys in code order.
    pub(super) fn generic(&self) -> impl Iterator<Item = &[u8]> {
        self.generic.iter().map(|&key| self.known.bytes(key))
    }

    /// Number of generic keys.
    pub(super) fn generic_len(&self) -> usize {
        self.generic.len()
    }

    pub(super) fn clear(&mut self) {
        self.known.clear();
        self.infos.clear();
        self.generic.clear();
        self.first = NO_CODE;
    }

    pub(super) fn heap_bytes(&self) -> u64 {
        self.known.heap_bytes()
            + (self.infos.capacity() * size_of::<Info>() + self.generic.capacity() * 4) as u64
    }
}
