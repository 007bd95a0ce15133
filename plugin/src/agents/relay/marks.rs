//! Metadata of a relayed call, which tell the leader the node that it is for.

use tonic::Status;
use tonic::metadata::{AsciiMetadataValue, MetadataMap};

use crate::agents::input::is_name;

/// Address of the relaying plugin's listener, for people. It marks the stream as relayed.
const BY: &str = "fiberlb-relayed-by";
/// Id in the node's certificate that the relaying plugin has verified; absent if there was none (unix
/// socket).
const NODE: &str = "fiberlb-relayed-node";
/// Longest text of `BY` that is kept, in bytes.
const BY_BYTES: usize = 256;

/// Origin of a relayed stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Relayed {
    /// Address of the relaying plugin's listener.
    pub(crate) by: String,
    /// The node that it vouches for.
    pub(crate) node: Option<String>,
}

impl Relayed {
    /// Reads the marks. None: the stream is not relayed.
    pub(crate) fn read(metadata: &MetadataMap) -> Result<Option<Self>, Status> {
        let node = metadata.get(NODE).map(|value| value.to_str().ok().filter(|text| is_name(text)));
        let by = metadata.get(BY).map(|value| value.to_str().unwrap_or_default());
        let (by, node) = match (by, node) {
            (None, None) => return Ok(None),
            (_, Some(None)) => return Err(Status::invalid_argument(format!("{NODE} is no node's id"))),
            (by, node) => (by.unwrap_or_default(), node.flatten()),
        };
        let by = by.chars().take(BY_BYTES).collect();
        Ok(Some(Self { by, node: node.map(str::to_owned) }))
    }

    pub(crate) fn write(&self, metadata: &mut MetadataMap) {
        // A path that metadata cannot carry matters to people only.
        let by = AsciiMetadataValue::try_from(&self.by);
        metadata.insert(BY, by.unwrap_or_else(|_| AsciiMetadataValue::from_static("another plugin")));
        // Ids of nodes are letters, digits and the like.
        if let Some(node) = self.node.as_ref().and_then(|node| AsciiMetadataValue::try_from(node).ok()) {
            metadata.insert(NODE, node);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_survive_the_way() {
        for (by, node) in [("unix:/run/a", None), ("https://a:1", Some("n-1".to_owned()))] {
            let marks = Relayed { by: by.to_owned(), node };
            let mut metadata = MetadataMap::new();
            marks.write(&mut metadata);
            assert_eq!(Relayed::read(&metadata).unwrap(), Some(marks));
        }
        assert_eq!(Relayed::read(&MetadataMap::new()).unwrap(), None);
    }

    #[test]
    fn half_of_the_marks_is_a_relayed_stream_too() {
        let mut metadata = MetadataMap::new();
        metadata.insert(NODE, "n".parse().unwrap());
        assert_eq!(Relayed::read(&metadata).unwrap().unwrap().node.as_deref(), Some("n"));
        metadata.insert(NODE, "a/b".parse().unwrap());
        assert!(Relayed::read(&metadata).is_err());
    }
}
