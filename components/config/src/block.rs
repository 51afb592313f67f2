//! Blocks of settings, declared once: key, type, default, meaning, and whether it is honoured.
//!
//! From the one declaration come the plain struct with its `Default`, the strict reader, the
//! effective configuration and the reference page, so none can drift from another.

/// Declares a block of settings.
///
/// ```text
/// block! {
///     /// What the block is for.
///     pub struct Wal {
///         /// What the key means.
///         used path: String = "/var/tempo/wal",
///         ..tls: Tls = Tls::default(),      // keys of another block, on the same level
///     }
/// }
/// ```
/// In front of a key stands `used`, `later` or `ignored` ([`crate::value::Status`]).
macro_rules! block {
    (
        $(#[doc = $doc:literal])*
        pub struct $name:ident {
            $(
                $(#[doc = $field_doc:literal])*
                $status:ident $field:ident: $type:ty = $default:expr,
            )*
            $(
                ..$inline:ident: $inline_type:ty = $inline_default:expr,
            )*
        }
    ) => {
        $(#[doc = $doc])*
        #[derive(Debug, Clone, PartialEq)]
        pub struct $name {
            $($(#[doc = $field_doc])* pub $field: $type,)*
            $(
                /// Keys on the same level.
                pub $inline: $inline_type,
            )*
        }

        impl Default for $name {
            fn default() -> Self {
                Self {
                    $($field: $crate::block::Setting::setting($default),)*
                    $($inline: $inline_default,)*
                }
            }
        }

        impl $crate::value::Block for $name {
            fn meaning(&self) -> &'static [&'static str] {
                &[$($doc),*]
            }
            fn fields(&self) -> Vec<$crate::value::Field<'_>> {
                #[allow(unused_mut)]
                let mut fields = vec![$(
                    $crate::value::Field {
                        key: $crate::block::key(stringify!($field)),
                        meaning: &[$($field_doc),*],
                        status: $crate::block::status!($status),
                        value: &self.$field,
                    },
                )*];
                $(fields.extend($crate::value::Block::fields(&self.$inline));)*
                fields
            }
            fn field_mut(
                &mut self,
                key: &str,
            ) -> Option<($crate::value::Status, &mut dyn $crate::value::Value)> {
                match key {
                    $(
                        _ if key == $crate::block::key(stringify!($field)) => {
                            Some(($crate::block::status!($status), &mut self.$field))
                        }
                    )*
                    _ => {
                        $(
                            if let Some(found) =
                                $crate::value::Block::field_mut(&mut self.$inline, key)
                            {
                                return Some(found);
                            }
                        )*
                        None
                    }
                }
            }
        }

        impl $crate::value::Value for $name {
            fn merge(
                &mut self,
                node: &$crate::document::Node,
                decoder: &mut $crate::value::Decoder<'_>,
            ) {
                $crate::value::merge_block(self, node, decoder);
            }
            fn render(&self) -> $crate::render::Rendered {
                $crate::value::render_block(self)
            }
            fn type_name(&self) -> String {
                "settings".to_owned()
            }
            fn block(&self) -> Option<&dyn $crate::value::Block> {
                Some(self)
            }
        }
    };
}
pub(crate) use block;

macro_rules! status {
    (used) => {
        $crate::value::Status::Used
    };
    (later) => {
        $crate::value::Status::Later
    };
    (ignored) => {
        $crate::value::Status::Ignored
    };
}
pub(crate) use status;

/// The key of a field whose name may be a raw identifier.
pub(crate) fn key(field: &'static str) -> &'static str {
    field.strip_prefix("r#").unwrap_or(field)
}

/// Lets defaults be written as literals.
pub(crate) trait Setting<T> {
    fn setting(self) -> T;
}

impl<T> Setting<T> for T {
    fn setting(self) -> T {
        self
    }
}

impl Setting<String> for &str {
    fn setting(self) -> String {
        self.to_owned()
    }
}

impl Setting<Vec<String>> for &[&str] {
    fn setting(self) -> Vec<String> {
        self.iter().map(|text| (*text).to_owned()).collect()
    }
}

impl<const N: usize> Setting<Vec<String>> for [&str; N] {
    fn setting(self) -> Vec<String> {
        self.iter().map(|text| (*text).to_owned()).collect()
    }
}
