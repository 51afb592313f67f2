//! Cutting an answer into messages that a client can receive.

use prost::Message;
use tempo_proto::tempopb::{
    QueryInstantResponse, QueryRangeResponse, SearchResponse, SearchTagValuesResponse,
    SearchTagValuesV2Response, SearchTagsResponse, SearchTagsV2Response, SearchTagsV2Scope,
};

/// An answer that can be cut between the items of its list.
pub(super) trait Packet: Message + Default {
    /// What the list holds.
    type Item;

    /// Takes the items out; what stays goes into every packet.
    fn take_items(&mut self) -> Vec<Self::Item>;

    /// The answer without items, for another packet.
    fn without_items(&self) -> Self;

    /// Bytes that an item adds to the message.
    fn item_bytes(item: &Self::Item) -> usize;

    /// Adds an item at the end.
    fn add(&mut self, item: Self::Item);

    /// Whether there is no item yet.
    fn is_empty(&self) -> bool;

    /// Adds to the last packet what only that one tells of the answer.
    fn end(&self, last: &mut Self) {
        let _ = last;
    }
}

/// Cuts an answer into packets of at most `max_bytes` (of any size when 0). An item that is larger
/// has a packet for itself.
pub(super) fn packets<T: Packet>(mut answer: T, max_bytes: usize) -> Vec<T> {
    if max_bytes == 0 {
        return vec![answer];
    }
    let items = answer.take_items();
    let mut done = Vec::new();
    let mut current = answer.without_items();
    let mut bytes = current.encoded_len();
    for item in items {
        let item_bytes = T::item_bytes(&item);
        if !current.is_empty() && bytes + item_bytes > max_bytes {
            done.push(std::mem::replace(&mut current, answer.without_items()));
            bytes = current.encoded_len();
        }
        current.add(item);
        bytes += item_bytes;
    }
    answer.end(&mut current);
    done.push(current);
    done
}

/// Bytes of a field with a one-byte tag.
fn field_bytes(len: usize) -> usize {
    1 + prost::encoding::encoded_len_varint(len as u64) + len
}

macro_rules! packet {
    ($message:ident, $list:ident, $item:ty, |$each:ident| $len:expr) => {
        impl Packet for $message {
            type Item = $item;

            fn take_items(&mut self) -> Vec<$item> {
                std::mem::take(&mut self.$list)
            }

            fn without_items(&self) -> Self {
                Self {
                    metrics: self.metrics.clone(),
                    ..Self::default()
                }
            }

            fn item_bytes($each: &$item) -> usize {
                field_bytes($len)
            }

            fn add(&mut self, item: $item) {
                self.$list.push(item);
            }

            fn is_empty(&self) -> bool {
                self.$list.is_empty()
            }
        }
    };
}

packet!(
    SearchResponse,
    traces,
    tempo_proto::tempopb::TraceSearchMetadata,
    |trace| trace.encoded_len()
);
packet!(SearchTagsResponse, tag_names, String, |name| name.len());
packet!(SearchTagValuesResponse, tag_values, String, |value| {
    value.len()
});
packet!(
    SearchTagValuesV2Response,
    tag_values,
    tempo_proto::tempopb::TagValue,
    |value| value.encoded_len()
);

/// Series are sent whole; whether some are missing is told at the end.
macro_rules! series_packet {
    ($message:ident, $item:ty) => {
        impl Packet for $message {
            type Item = $item;

            fn take_items(&mut self) -> Vec<$item> {
                std::mem::take(&mut self.series)
            }

            fn without_items(&self) -> Self {
                Self {
                    metrics: self.metrics.clone(),
                    ..Self::default()
                }
            }

            fn item_bytes(series: &$item) -> usize {
                field_bytes(series.encoded_len())
            }

            fn add(&mut self, series: $item) {
                self.series.push(series);
            }

            fn is_empty(&self) -> bool {
                self.series.is_empty()
            }

            fn end(&self, last: &mut Self) {
                last.status = self.status;
                last.message.clone_from(&self.message);
            }
        }
    };
}

series_packet!(QueryRangeResponse, tempo_proto::tempopb::TimeSeries);
series_packet!(QueryInstantResponse, tempo_proto::tempopb::InstantSeries);

/// Scopes are cut between their tags; a scope that goes on has its name in every packet.
impl Packet for SearchTagsV2Response {
    /// Scope and tag.
    type Item = (String, String);

    fn take_items(&mut self) -> Vec<Self::Item> {
        std::mem::take(&mut self.scopes)
            .into_iter()
            .flat_map(|scope| {
                let name = scope.name;
                scope.tags.into_iter().map(move |tag| (name.clone(), tag))
            })
            .collect()
    }

    fn without_items(&self) -> Self {
        Self {
            scopes: Vec::new(),
            metrics: self.metrics.clone(),
        }
    }

    fn item_bytes((scope, tag): &Self::Item) -> usize {
        // As if every tag brought its scope's name along: never too little.
        field_bytes(tag.len()) + field_bytes(scope.len())
    }

    fn add(&mut self, (scope, tag): Self::Item) {
        match self.scopes.last_mut() {
            Some(last) if last.name == scope => last.tags.push(tag),
            _ => self.scopes.push(SearchTagsV2Scope {
                name: scope,
                tags: vec![tag],
            }),
        }
    }

    fn is_empty(&self) -> bool {
        self.scopes.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use tempo_proto::tempopb::MetadataMetrics;

    use super::*;

    #[test]
    fn answers_are_cut_between_items_and_repeat_their_metrics() {
        let answer = SearchTagsV2Response {
            scopes: ["span", "resource"]
                .map(|name| SearchTagsV2Scope {
                    name: name.to_owned(),
                    tags: (0..10).map(|number| format!("tag-{number}")).collect(),
                })
                .to_vec(),
            metrics: Some(MetadataMetrics {
                inspected_bytes: 7,
                ..MetadataMetrics::default()
            }),
        };
        let whole = std::slice::from_ref(&answer);
        assert_eq!(packets(answer.clone(), 0), whole);
        assert_eq!(packets(answer.clone(), 1 << 20), whole);
        let cut = packets(answer.clone(), 60);
        assert!(cut.len() > 3);
        let mut tags = Vec::new();
        for packet in &cut {
            assert!(packet.encoded_len() <= 60);
            assert_eq!(packet.metrics, answer.metrics);
            for scope in &packet.scopes {
                tags.extend(
                    scope
                        .tags
                        .iter()
                        .map(|tag| (scope.name.clone(), tag.clone())),
                );
            }
        }
        assert_eq!(tags, answer.clone().take_items());
    }

    #[test]
    fn only_the_last_packet_of_series_tells_that_some_are_missing() {
        let answer = QueryRangeResponse {
            series: vec![tempo_proto::tempopb::TimeSeries::default(); 3],
            status: 1,
            message: "partial".to_owned(),
            ..QueryRangeResponse::default()
        };
        let cut = packets(answer, 1);
        let told: Vec<_> = cut
            .iter()
            .map(|packet| (packet.series.len(), packet.status, packet.message.as_str()))
            .collect();
        assert_eq!(told, [(1, 0, ""), (1, 0, ""), (1, 1, "partial")]);
    }

    #[test]
    fn a_large_item_goes_alone_and_an_empty_answer_is_sent() {
        let answer = SearchTagsResponse {
            tag_names: vec!["a".to_owned(), "b".repeat(100), "c".to_owned()],
            metrics: None,
        };
        let cut = packets(answer, 10);
        let sizes: Vec<_> = cut.iter().map(|packet| packet.tag_names.len()).collect();
        assert_eq!(sizes, [1, 1, 1]);
        assert_eq!(packets(SearchTagsResponse::default(), 10).len(), 1);
    }
}
