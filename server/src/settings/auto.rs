//! A setting that is chosen by the product unless a person does.

use serde::de::IntoDeserializer;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A value, or `auto` (also empty text) for the product's own choice. Values are text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Auto<T>(pub Option<T>);

impl<T: Serialize> Serialize for Auto<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            Some(value) => value.serialize(serializer),
            None => serializer.serialize_str("auto"),
        }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Auto<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        match text.as_str() {
            "" | "auto" => Ok(Self(None)),
            _ => T::deserialize(text.into_deserializer()).map(|value| Self(Some(value))),
        }
    }
}
