//! Which form of an answer a client wants.

/// The form of an answer's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// The protobuf message.
    Protobuf,
    /// The JSON form of the protobuf message.
    Json,
    /// A flat JSON form with less repetition, for language models. Only some endpoints have it.
    Llm,
}

impl Encoding {
    /// Reads an `Accept` header the way Tempo does: the first known type that occurs anywhere in
    /// it wins, in a fixed order and whatever the quality values; nothing known means JSON.
    pub fn from_accept(accept: &str) -> Self {
        [Self::Protobuf, Self::Json, Self::Llm]
            .into_iter()
            .find(|encoding| accept.contains(encoding.media_type()))
            .unwrap_or(Self::Json)
    }

    /// The media type, as clients ask for it.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Protobuf => "application/protobuf",
            Self::Json => "application/json",
            Self::Llm => "application/vnd.grafana.llm",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_known_type_in_fixed_order_wins() {
        let cases = [
            ("", Encoding::Json),
            ("text/html", Encoding::Json),
            ("application/json", Encoding::Json),
            ("application/protobuf", Encoding::Protobuf),
            ("application/json, application/protobuf", Encoding::Protobuf),
            (
                "application/vnd.grafana.llm;q=1, application/json;q=0.1",
                Encoding::Json,
            ),
            ("application/vnd.grafana.llm", Encoding::Llm),
        ];
        for (accept, want) in cases {
            assert_eq!(Encoding::from_accept(accept), want, "{accept}");
        }
    }
}
