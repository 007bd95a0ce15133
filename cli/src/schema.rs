//! Descriptors of the API: its messages, fields, enums and methods. Everything generic in this program uses them and does not know
//! the fields of resources.

use fiberlb_proto::FILE_DESCRIPTOR_SET;
use prost_reflect::{
    DescriptorPool, DynamicMessage, EnumDescriptor, FieldDescriptor, Kind as FieldKind, MessageDescriptor,
    MethodDescriptor, Value,
};

use crate::failure::Failure;

/// Package of the API.
const PACKAGE: &str = "fiberlb.v1";

/// Descriptors of `fiberlb.v1`.
#[derive(Clone, Debug)]
pub(crate) struct Schema {
    pool: DescriptorPool,
}

impl Schema {
    /// Decodes the descriptors that this program was built with.
    ///
    /// # Errors
    /// Internal error.
    pub(crate) fn load() -> Result<Self, Failure> {
        let pool =
            DescriptorPool::decode(FILE_DESCRIPTOR_SET).map_err(|error| internal(&error.to_string()))?;
        Ok(Self { pool })
    }

    /// Message of the package, by its short name.
    pub(crate) fn message(&self, name: &str) -> Result<MessageDescriptor, Failure> {
        self.pool
            .get_message_by_name(&format!("{PACKAGE}.{name}"))
            .ok_or_else(|| internal(&format!("no message {name}")))
    }

    /// Enum of the package, by its short name.
    pub(crate) fn enumeration(&self, name: &str) -> Result<EnumDescriptor, Failure> {
        self.pool
            .get_enum_by_name(&format!("{PACKAGE}.{name}"))
            .ok_or_else(|| internal(&format!("no enum {name}")))
    }

    /// Method, by the short name of its service.
    pub(crate) fn method(&self, service: &str, name: &str) -> Result<MethodDescriptor, Failure> {
        let service = self.pool.get_service_by_name(&format!("{PACKAGE}.{service}"));
        service
            .and_then(|service| service.methods().find(|method| method.name() == name))
            .ok_or_else(|| internal(&format!("no method {name}")))
    }

    /// Converts a generated message to a dynamic one of the same `name`.
    pub(crate) fn dynamic<M: prost::Message>(
        &self,
        name: &str,
        message: &M,
    ) -> Result<DynamicMessage, Failure> {
        let mut dynamic = DynamicMessage::new(self.message(name)?);
        dynamic.transcode_from(message).map_err(|error| internal(&error.to_string()))?;
        Ok(dynamic)
    }
}

/// Descriptor of the field at a dotted path; `None` if there is no such field.
pub(crate) fn field_at(message: &MessageDescriptor, path: &str) -> Option<FieldDescriptor> {
    match path.split_once('.') {
        None => message.get_field_by_name(path),
        Some((head, rest)) => field_at(message.get_field_by_name(head)?.kind().as_message()?, rest),
    }
}

/// Comment of a field in the `.proto` file, in its two parts: what it is when it is not given, such as `Default: 5 s`, and
/// its range and meaning.
pub(crate) fn comment(field: &FieldDescriptor) -> (String, String) {
    let file = field.parent_file();
    let info = file.file_descriptor_proto().source_code_info.as_ref();
    let location = info.and_then(|info| info.location.iter().find(|it| it.path == field.path()));
    let text = location.map(|location| location.leading_comments()).unwrap_or_default();
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let text = text.trim_end_matches('.');
    let (first, rest) = text.split_once(". ").unwrap_or((text, ""));
    (first.to_owned(), rest.to_owned())
}

/// Sets the field at a dotted path, making the messages on the way.
///
/// # Errors
/// Internal error, if the path or the value does not fit the message.
pub(crate) fn set_at(message: &mut DynamicMessage, path: &str, value: Value) -> Result<(), Failure> {
    match path.split_once('.') {
        None => {
            message.try_set_field_by_name(path, value).map_err(|error| internal(&format!("{path}: {error}")))
        }
        Some((head, rest)) => {
            let inner = message.get_field_by_name_mut(head).and_then(Value::as_message_mut);
            set_at(inner.ok_or_else(|| internal(&format!("no message {head}")))?, rest, value)
        }
    }
}

/// Resets the field at a dotted path to its default; does nothing where it is not set.
pub(crate) fn clear_at(message: &mut DynamicMessage, path: &str) {
    match path.split_once('.') {
        None => message.clear_field_by_name(path),
        Some((head, rest)) => {
            if message.has_field_by_name(head)
                && let Some(inner) = message.get_field_by_name_mut(head).and_then(Value::as_message_mut)
            {
                clear_at(inner, rest);
            }
        }
    }
}

/// True for a field of type `google.protobuf.Duration`.
pub(crate) fn is_duration(kind: &FieldKind) -> bool {
    kind.as_message().is_some_and(|message| message.full_name() == "google.protobuf.Duration")
}

/// Internal error of this program.
pub(crate) fn internal(what: &str) -> Failure {
    Failure::error(format!("internal error, please report it: {what}"))
}
