//! Which attributes the traces of a row group have.

use std::sync::Arc;

use tempo_table::{AttributeScope, Bitmap, ColumnKey, TableError};

use super::{Localized, RowGroupTable};
use crate::{
    read::{
        group::LeafIndex,
        view::{SERVICE_NAME, View},
    },
    schema::{AttributeLeaf, LeafColumn, WellKnown},
};

impl RowGroupTable {
    /// Names that have a leaf of their own.
    fn own_names(&self, scope: AttributeScope) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        names.extend(
            WellKnown::ALL
                .iter()
                .filter(|column| column.scope() == scope)
                .map(|column| column.key()),
        );
        names.extend(
            self.file()
                .dedicated()
                .iter()
                .filter(|column| column.leaf.scope == scope)
                .map(|column| &*column.name),
        );
        names.retain(|name| self.file().own_leaves(scope, name).next().is_some());
        names
    }

    fn own_name_is_used(&self, scope: AttributeScope, name: &str) -> Result<bool, TableError> {
        for leaf in self.file().own_leaves(scope, name) {
            match self.has_values(leaf) {
                Some(false) => {}
                Some(true) => return Ok(true),
                None => {
                    let column = self.whole_column(&ColumnKey::attribute(scope, name))?;
                    return Ok(!column.is_absent());
                }
            }
        }
        Ok(false)
    }

    pub(super) fn names_of_all(&self, scope: AttributeScope) -> Result<Vec<Arc<str>>, TableError> {
        let mut names: Vec<Arc<str>> = Vec::new();
        let column = LeafColumn::Attribute(scope, AttributeLeaf::Key);
        if let Some(leaf) = self.file().position(column)
            && self.bytes().may_have_values(leaf)
        {
            match self.whole_dictionary(leaf)? {
                Some(dictionary) => names.extend(dictionary.iter().map(to_name)),
                None => {
                    let slots = self.all.slots(scope)?;
                    let slots = slots.iter().flat_map(|slots| slots.names_of(None));
                    names.extend(slots.map(to_name));
                }
            }
        }
        for name in self.own_names(scope) {
            if self.own_name_is_used(scope, name)? {
                names.push(Arc::from(name));
            }
        }
        if scope == AttributeScope::Resource && self.some_service_is_named(None)? {
            names.push(Arc::from(SERVICE_NAME));
        }
        Ok(names)
    }

    fn some_service_is_named(&self, rows: Option<(&View, &[u32])>) -> Result<bool, TableError> {
        if rows.is_none()
            && let Some(leaf) = self.file().position(LeafColumn::ResourceServiceName)
            && let Some(names) = self.whole_dictionary(leaf)?
            && names.iter().any(|name| !name.is_empty())
        {
            return Ok(true);
        }
        let key = ColumnKey::attribute(AttributeScope::Resource, SERVICE_NAME);
        let column = match rows {
            Some((view, _)) => view.column(&key)?,
            None => self.whole_column(&key)?,
        };
        let named = |row: usize| match &column.strings {
            Some(lane)
                if lane
                    .codes
                    .get(row)
                    .is_some_and(|&code| (code as usize) < lane.dict.len()) =>
            {
                !lane.dict.bytes(lane.codes[row]).is_empty()
            }
            _ => !column.is_nil(row),
        };
        Ok(match rows {
            Some((_, rows)) => rows.iter().any(|&row| named(row as usize)),
            None => (0..column.len).any(named),
        })
    }

    pub(super) fn names_of_rows(
        &self,
        scope: AttributeScope,
        rows: &Bitmap,
    ) -> Result<Vec<Arc<str>>, TableError> {
        let leaves: Vec<LeafIndex> = self.generic_leaves(scope).collect();
        let wanted = rows.iter().map(|row| row as u32);
        let localized = self.localize(scope.level(), rows.count(), wanted, &leaves)?;
        let (view, local) = match &localized {
            Some(Localized { view: None, .. }) => return Ok(Vec::new()),
            Some(Localized {
                view: Some(view),
                rows,
            }) => (&**view, rows.clone()),
            None => (&self.all, rows.iter().map(|row| row as u32).collect()),
        };
        let mut owners = Bitmap::new(view.rows(scope.level())?);
        local.iter().for_each(|&row| owners.insert(row as usize));
        let mut names: Vec<Arc<str>> = Vec::new();
        if let Some(slots) = view.slots(scope)? {
            names.extend(slots.names_of(Some(&owners)).into_iter().map(to_name));
        }
        for name in self.own_names(scope) {
            if !self.own_name_is_used(scope, name)? {
                continue;
            }
            let column = view.column(&ColumnKey::attribute(scope, name))?;
            if local.iter().any(|&row| !column.is_nil(row as usize)) {
                names.push(Arc::from(name));
            }
        }
        if scope == AttributeScope::Resource && self.some_service_is_named(Some((view, &local)))? {
            names.push(Arc::from(SERVICE_NAME));
        }
        Ok(names)
    }
}

fn to_name(bytes: &[u8]) -> Arc<str> {
    Arc::from(String::from_utf8_lossy(bytes))
}
