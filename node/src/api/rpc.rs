//! JSON-RPC 2.0 (<https://www.jsonrpc.org/specification>), one object per line.
//!
//! The law: any line gives a request or an error to answer with, and reading is bounded.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tokio::io::{AsyncBufRead, AsyncBufReadExt};

use super::{
    error::{ApiError, ErrorCode},
    types::{Event, Request},
};

/// Codes of the specification.
pub(super) const PARSE_ERROR: i64 = -32700;
pub(super) const INVALID_REQUEST: i64 = -32600;
pub(super) const METHOD_NOT_FOUND: i64 = -32601;
pub(super) const INVALID_PARAMS: i64 = -32602;
/// Ours: what went wrong is in `data`.
pub(super) const FAILED: i64 = -32000;

/// What a line asks for.
#[derive(Debug, PartialEq)]
pub(super) enum Call {
    /// A request to the device.
    Request(Request),
    /// Events from here on.
    Subscribe { after: Option<u64> },
}

/// A line that was understood: what to do, and the id to answer with (none: a notification).
#[derive(Debug, PartialEq)]
pub(super) struct Incoming {
    pub(super) id: Option<Value>,
    pub(super) call: Call,
}

/// A line that was not: the answer to give.
#[derive(Debug, PartialEq)]
pub(super) struct Refusal {
    pub(super) id: Value,
    pub(super) code: i64,
    pub(super) error: ApiError,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Subscribe {
    #[serde(default)]
    after: Option<u64>,
}

/// Understands one line.
pub(super) fn parse(line: &[u8]) -> Result<Incoming, Refusal> {
    let usage = |message: String| ApiError::new(ErrorCode::Usage, message);
    let refuse = |id: &Value, code, error| Refusal { id: id.clone(), code, error };
    let null = Value::Null;
    let value: Value = serde_json::from_slice(line).map_err(|error| {
        refuse(&null, PARSE_ERROR, usage(format!("the line is not JSON: {error}")))
    })?;
    let Value::Object(mut object) = value else {
        let error = usage("a request is one JSON object per line; batches are not taken".into());
        return Err(refuse(&null, INVALID_REQUEST, error));
    };
    let id = match object.remove("id") {
        None => None,
        Some(id @ (Value::Null | Value::Number(_) | Value::String(_))) => Some(id),
        Some(_) => {
            let error = usage("an id is a number, a string or null".into());
            return Err(refuse(&null, INVALID_REQUEST, error));
        }
    };
    let shown = id.clone().unwrap_or_default();
    if object.get("jsonrpc") != Some(&json!("2.0")) {
        let error = usage("\"jsonrpc\" must be \"2.0\"".into());
        return Err(refuse(&shown, INVALID_REQUEST, error));
    }
    let Some(Value::String(method)) = object.remove("method") else {
        let error = usage("\"method\" must be a string".into());
        return Err(refuse(&shown, INVALID_REQUEST, error));
    };
    let params = object.remove("params").unwrap_or_else(|| Value::Object(Map::new()));
    if !params.is_object() {
        let error = usage("\"params\" must be an object".into());
        return Err(refuse(&shown, INVALID_PARAMS, error));
    }
    let wrong = |error: serde_json::Error| {
        refuse(&shown, INVALID_PARAMS, usage(format!("{method}: {error}")))
    };
    let call = if method == "subscribe" {
        let Subscribe { after } = serde_json::from_value(params).map_err(wrong)?;
        Call::Subscribe { after }
    } else if Request::METHODS.contains(&method.as_str()) {
        let request = json!({ "method": method, "params": params });
        Call::Request(serde_json::from_value(request).map_err(wrong)?)
    } else {
        let error = usage(format!("there is no method {method:?}"))
            .hint(format_args!("methods: subscribe, {}", Request::METHODS.join(", ")));
        return Err(refuse(&shown, METHOD_NOT_FOUND, error));
    };
    Ok(Incoming { id, call })
}

/// A request as a line.
pub(super) fn request_line(id: u64, request: &Request) -> String {
    let mut object = serde_json::to_value(request).unwrap_or_default();
    object["jsonrpc"] = json!("2.0");
    object["id"] = json!(id);
    line(&object)
}

/// A subscription as a line.
pub(super) fn subscribe_line(id: u64, after: Option<u64>) -> String {
    line(
        &json!({ "jsonrpc": "2.0", "id": id, "method": "subscribe", "params": { "after": after } }),
    )
}

/// An answer as a line.
pub(super) fn result_line(id: &Value, result: &Value) -> String {
    line(&json!({ "jsonrpc": "2.0", "id": id, "result": result }))
}

/// An error as a line.
pub(super) fn error_line(id: &Value, code: i64, error: &ApiError) -> String {
    let body = json!({ "code": code, "message": error.message, "data": error });
    line(&json!({ "jsonrpc": "2.0", "id": id, "error": body }))
}

/// An event, or the error that ends the events, as a line.
pub(super) fn event_line(event: &Result<Event, ApiError>) -> String {
    match event {
        Ok(event) => line(&json!({ "jsonrpc": "2.0", "method": "event", "params": event })),
        Err(error) => line(&json!({ "jsonrpc": "2.0", "method": "error", "params": error })),
    }
}

fn line(value: &impl Serialize) -> String {
    // Values of our own types with string keys always serialise.
    let mut line = serde_json::to_string(value).unwrap_or_default();
    line.push('\n');
    line
}

/// What a server can say.
#[derive(Debug, Deserialize)]
pub(super) struct Outgoing {
    #[serde(default)]
    pub(super) id: Option<Value>,
    #[serde(default)]
    pub(super) result: Option<Value>,
    #[serde(default)]
    pub(super) error: Option<RpcError>,
    #[serde(default)]
    pub(super) method: Option<String>,
    #[serde(default)]
    pub(super) params: Option<Value>,
}

/// The error of an answer.
#[derive(Debug, Deserialize)]
pub(super) struct RpcError {
    pub(super) message: String,
    #[serde(default)]
    pub(super) data: Option<ApiError>,
}

impl From<RpcError> for ApiError {
    fn from(error: RpcError) -> Self {
        error.data.unwrap_or_else(|| ApiError::internal(error.message))
    }
}

/// What came of reading a line.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// A line is in the buffer, without its end.
    Read,
    /// The other side is done.
    End,
    /// It is longer than allowed.
    TooLong,
}

/// Reads one line of at most `bytes_max` bytes into `buffer`.
pub(super) async fn read_line(
    reader: &mut (impl AsyncBufRead + Unpin),
    buffer: &mut Vec<u8>,
    bytes_max: usize,
) -> std::io::Result<Line> {
    buffer.clear();
    loop {
        let available = reader.fill_buf().await?;
        if available.is_empty() {
            return Ok(if buffer.is_empty() { Line::End } else { Line::Read });
        }
        let end = available.iter().position(|byte| *byte == b'\n');
        let part = &available[..end.unwrap_or(available.len())];
        if buffer.len() + part.len() > bytes_max {
            return Ok(Line::TooLong);
        }
        buffer.extend_from_slice(part);
        let used = part.len() + usize::from(end.is_some());
        reader.consume(used);
        if end.is_some() {
            return Ok(Line::Read);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn requests_survive_their_line() {
        let request = Request::Send { chat: "Ana".into(), text: "a\nb\u{0}".into() };
        let line = request_line(3, &request);
        assert_eq!(line.matches('\n').count(), 1, "one line");
        let parsed = parse(line.as_bytes()).unwrap();
        assert_eq!(parsed, Incoming { id: Some(json!(3)), call: Call::Request(request) });
        let parsed = parse(subscribe_line(4, Some(9)).as_bytes()).unwrap();
        assert_eq!(parsed.call, Call::Subscribe { after: Some(9) });
    }

    #[test]
    fn what_can_not_be_understood_has_json_rpcs_own_codes() {
        let cases: [(&str, i64, Value); 12] = [
            ("{", PARSE_ERROR, Value::Null),
            ("", PARSE_ERROR, Value::Null),
            ("[]", INVALID_REQUEST, Value::Null),
            ("7", INVALID_REQUEST, Value::Null),
            (r#"{"id":{},"jsonrpc":"2.0","method":"status"}"#, INVALID_REQUEST, Value::Null),
            (r#"{"id":1,"method":"status"}"#, INVALID_REQUEST, json!(1)),
            (r#"{"id":"a","jsonrpc":"2.0"}"#, INVALID_REQUEST, json!("a")),
            (r#"{"id":1,"jsonrpc":"2.0","method":"nope"}"#, METHOD_NOT_FOUND, json!(1)),
            (r#"{"id":1,"jsonrpc":"2.0","method":"send"}"#, INVALID_PARAMS, json!(1)),
            (r#"{"id":1,"jsonrpc":"2.0","method":"status","params":[]}"#, INVALID_PARAMS, json!(1)),
            (
                r#"{"id":1,"jsonrpc":"2.0","method":"send","params":{"chat":1,"text":"x"}}"#,
                INVALID_PARAMS,
                json!(1),
            ),
            (
                r#"{"id":1,"jsonrpc":"2.0","method":"subscribe","params":{"after":-1}}"#,
                INVALID_PARAMS,
                json!(1),
            ),
        ];
        for (line, code, id) in cases {
            let refusal = parse(line.as_bytes()).unwrap_err();
            assert_eq!((refusal.code, &refusal.id), (code, &id), "{line}");
            assert_eq!(refusal.error.code, ErrorCode::Usage);
        }
        let status = parse(br#"{"jsonrpc":"2.0","method":"status"}"#).unwrap();
        assert_eq!(status, Incoming { id: None, call: Call::Request(Request::Status {}) });
    }

    #[test]
    fn errors_survive_their_line() {
        let error = ApiError::new(ErrorCode::UnknownChat, "no chat \"x\"").hint("see `kith chats`");
        let line = error_line(&json!(1), FAILED, &error);
        let outgoing: Outgoing = serde_json::from_str(&line).unwrap();
        assert_eq!(ApiError::from(outgoing.error.unwrap()), error);
    }

    #[tokio::test]
    async fn lines_are_bounded() {
        let mut reader = b"one\n\nthree".as_slice();
        let mut buffer = Vec::new();
        for (expected, line) in [("one", Line::Read), ("", Line::Read), ("three", Line::Read)] {
            assert_eq!(read_line(&mut reader, &mut buffer, 5).await.unwrap(), line);
            assert_eq!(buffer, expected.as_bytes());
        }
        assert_eq!(read_line(&mut reader, &mut buffer, 5).await.unwrap(), Line::End);
        let mut long = b"123456\n".as_slice();
        assert_eq!(read_line(&mut long, &mut buffer, 5).await.unwrap(), Line::TooLong);
    }

    proptest! {
        #[test]
        fn any_line_is_answered(
            noise in proptest::collection::vec(any::<u8>(), 0..200),
            cut in any::<prop::sample::Index>(),
        ) {
            let _ = parse(&noise);
            let line = request_line(1, &Request::Log { chat: "é".into(), limit: 5, before: None });
            let _ = parse(&line.as_bytes()[..cut.index(line.len())]);
        }
    }
}
