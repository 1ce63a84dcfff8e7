//! The client against relays that misbehave, over a pipe.

use std::time::Duration;

use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio_util::compat::TokioAsyncReadCompatExt;

use super::*;
use crate::protocol::{
    ClientFrame, HelloLimits, LENGTH_BYTES, PROTOCOL_VERSION, ServerFrame, WriteOp, decode_frame,
    encode_frame, frame_length,
};

const RELAY: [u8; 32] = [1; 32];

fn options() -> Options {
    let timeout = Duration::from_millis(500);
    Options { hello_timeout: timeout, request_timeout: timeout }
}

fn hello() -> ServerFrame {
    ServerFrame::Hello(Hello {
        version: PROTOCOL_VERSION,
        relay: RELAY,
        nonce: [2; 32],
        epoch: Epoch([3; 16]),
        now_ms: 1000,
        limits: HelloLimits {
            item_bytes_max: 1000,
            deposit_items_max: 2,
            deposit_bytes_max: 1500,
            slot_bytes_max: 100,
            ttl_max_ms: 1000,
            ttl_default_ms: 1000,
            queue_bytes_max: 10_000,
            subscriptions_max: 10,
            reader_idle_ms: 1000,
        },
    })
}

async fn opened() -> (Client, Pushes, DuplexStream) {
    let (near, mut far) = tokio::io::duplex(1 << 20);
    far.write_all(&encode_frame(&hello()).unwrap()).await.unwrap();
    let (client, pushes) = connect(near.compat(), RELAY, options()).await.unwrap();
    (client, pushes, far)
}

async fn asked(far: &mut DuplexStream) -> ClientFrame {
    let mut prefix = [0; LENGTH_BYTES];
    far.read_exact(&mut prefix).await.unwrap();
    let mut bytes = vec![0; frame_length(prefix).unwrap()];
    far.read_exact(&mut bytes).await.unwrap();
    decode_frame(&bytes).unwrap()
}

async fn say(far: &mut DuplexStream, frame: ServerFrame) {
    far.write_all(&encode_frame(&frame).unwrap()).await.unwrap();
}

#[tokio::test]
async fn silence_is_a_timeout_and_a_late_answer_is_ignored() {
    let (client, _pushes, mut far) = opened().await;
    assert!(matches!(client.status().await, Err(ClientError::TimedOut { .. })));
    let request_id = asked(&mut far).await.request_id;
    say(&mut far, ServerFrame::Reply { request_id, result: Err(RelayError::RelayFull) }).await;
    let again = tokio::spawn(async move { client.status().await });
    let request_id = asked(&mut far).await.request_id;
    say(&mut far, ServerFrame::Reply { request_id, result: Err(RelayError::Closing) }).await;
    assert_eq!(again.await.unwrap(), Err(ClientError::Refused(RelayError::Closing)));
    let (near, _far) = tokio::io::duplex(100);
    let silent = connect(near.compat(), RELAY, options()).await.map(|_| ());
    assert!(matches!(silent, Err(ClientError::TimedOut { .. })));
}

#[tokio::test]
async fn answers_that_do_not_fit_end_the_session() {
    let strange: Vec<ServerFrame> = vec![
        hello(),
        ServerFrame::Reply { request_id: 1, result: Ok(Reply::Done) },
        ServerFrame::Reply { request_id: 99, result: Err(RelayError::Closing) },
    ];
    for frame in strange {
        let (client, mut pushes, mut far) = opened().await;
        let asking = client.clone();
        let status = tokio::spawn(async move { asking.status().await });
        asked(&mut far).await;
        say(&mut far, frame).await;
        assert!(matches!(status.await.unwrap(), Err(ClientError::Protocol(_))));
        assert!(matches!(pushes.next().await, Err(ClientError::Protocol(_))));
        assert!(matches!(client.ended().await, ClientError::Protocol(_)));
        assert!(matches!(client.status().await, Err(ClientError::Protocol(_))));
    }
}

#[tokio::test]
async fn promises_of_somebody_else_are_not_believed() {
    let (client, _pushes, mut far) = opened().await;
    let keys = QueueKeys::derive(&[4; 32], &RELAY);
    let item = DepositItem::new(vec![5; 10], 0, &DeleteToken::from_bytes([6; 32]));
    let statement = crate::protocol::Statement {
        queue: keys.id(),
        item: item.id,
        epoch: Epoch([3; 16]),
        expires_at_ms: 2000,
    };
    let stranger = ed25519_dalek::SigningKey::from_bytes(&[7; 32]);
    let outcomes = vec![Ok(Stored::sign(statement, &stranger))];
    let key = keys.depositor();
    let deposit = tokio::spawn(async move { client.deposit(&key, vec![item]).await });
    let request_id = asked(&mut far).await.request_id;
    let deposited = crate::protocol::Deposited { outcomes };
    say(&mut far, ServerFrame::Reply { request_id, result: Ok(Reply::Deposited(deposited)) }).await;
    assert!(matches!(deposit.await.unwrap(), Err(ClientError::Protocol(_))));
}

#[tokio::test]
async fn deposits_are_split_by_the_relays_limits() {
    let (client, _pushes, mut far) = opened().await;
    let key = QueueKeys::derive(&[4; 32], &RELAY).depositor();
    let token = DeleteToken::from_bytes([6; 32]);
    let items = [900, 700, 10, 10, 2000, 10].map(|n| DepositItem::new(vec![0; n], 0, &token));
    let deposit = tokio::spawn(async move { client.deposit(&key, items.to_vec()).await });
    for expected in [vec![900], vec![700, 10], vec![10], vec![10]] {
        let frame = asked(&mut far).await;
        let Request::Write { op: WriteOp::Deposit(items), .. } = frame.request else { panic!() };
        assert_eq!(items.iter().map(|item| item.payload.len()).collect::<Vec<_>>(), expected);
        let outcomes = items.iter().map(|_| Err(RelayError::RelayFull)).collect();
        let result = Ok(Reply::Deposited(crate::protocol::Deposited { outcomes }));
        say(&mut far, ServerFrame::Reply { request_id: frame.request_id, result }).await;
    }
    let outcomes = deposit.await.unwrap().unwrap();
    assert_eq!(outcomes.len(), 6);
    assert_eq!(outcomes[4], Err(RelayError::TooLarge { bytes: 2000, bytes_max: 1000 }));
}

#[tokio::test]
async fn dropping_the_client_closes_the_stream() {
    let (client, pushes, mut far) = opened().await;
    drop(client);
    let mut rest = Vec::new();
    far.read_to_end(&mut rest).await.unwrap();
    assert!(rest.is_empty());
    drop(pushes);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn random_bytes_end_the_session_with_an_error(
        bytes in proptest::collection::vec(any::<u8>(), 0..500),
        after_hello in any::<bool>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (near, mut far) = tokio::io::duplex(1 << 20);
            if after_hello {
                far.write_all(&encode_frame(&hello()).unwrap()).await.unwrap();
            }
            far.write_all(&bytes).await.unwrap();
            drop(far);
            if let Ok((client, mut pushes)) = connect(near.compat(), RELAY, options()).await {
                while pushes.next().await.is_ok() {}
                assert!(client.status().await.is_err());
            }
        });
    }
}
