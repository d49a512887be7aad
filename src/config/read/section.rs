//! One table a section: the `section!` macro makes of it the struct, the reader and the schema, so that none of them can
//! know a key that the others do not.

use super::reader::{Field, Fields, Reader};

/// A mapping with a fixed set of keys.
pub(super) trait Section: schemars::JsonSchema + Sized {
    /// Reads the section's keys from an open mapping.
    fn fields(fields: &mut Fields<'_>, reader: &mut Reader<'_>) -> Self;
}

/// Declares a section: `"key" => field: Kind = default;`. The default is documentation; a test holds it against the
/// configuration's own. A field that nobody reads is a warning of the compiler, so that no key is accepted and forgotten; one
/// that is meant to have no effect begins with `_`.
macro_rules! section {
    (
        $(#[$meta:meta])*
        $name:ident {
            $( $(#[$field_meta:meta])* $key:literal => $field:ident: $kind:ty $(= $default:expr)?; )*
        }
    ) => {
        $(#[$meta])*
        #[derive(Default, ::schemars::JsonSchema)]
        #[schemars(deny_unknown_fields)]
        pub(in crate::config::read) struct $name {
            $(
                $(#[$field_meta])*
                #[schemars(rename = $key $(, extend("default" = $default))?)]
                pub(in crate::config::read) $field: Option<$crate::config::read::reader::Field<$kind>>,
            )*
        }

        impl $crate::config::read::section::Section for $name {
            fn fields(
                fields: &mut $crate::config::read::reader::Fields<'_>,
                reader: &mut $crate::config::read::reader::Reader<'_>,
            ) -> Self {
                Self { $($field: fields.get($key, reader)),* }
            }
        }

        impl $crate::config::read::value::Value for $name {
            fn read(
                node: &$crate::config::read::node::Node,
                reader: &mut $crate::config::read::reader::Reader<'_>,
            ) -> Option<Self> {
                let mut fields = $crate::config::read::reader::Fields::open(node, reader)?;
                let section = <Self as $crate::config::read::section::Section>::fields(&mut fields, reader);
                fields.close(reader);
                Some(section)
            }

            fn schema(generator: &mut ::schemars::SchemaGenerator) -> ::schemars::Schema {
                <Self as ::schemars::JsonSchema>::json_schema(generator)
            }
        }
    };
}

pub(super) use section;

/// Puts a value that was given in the place of a default.
pub(super) fn set<T, U: From<T>>(slot: &mut U, field: Option<Field<T>>) {
    if let Some(field) = field {
        *slot = field.value.into();
    }
}

/// Takes what is said in two ways: either, or both if they agree.
pub(super) fn agree<T: PartialEq>(
    first: Option<Field<T>>,
    second: Option<Field<T>>,
    reader: &mut Reader<'_>,
) -> Option<Field<T>> {
    if let (Some(first), Some(second)) = (&first, &second)
        && first.value != second.value
    {
        let message = format!("says something else than `{}`; give it once", first.place.path);
        reader.problem(&second.place, message);
    }
    first.or(second)
}
