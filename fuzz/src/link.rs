//! The control link: whatever a peer sends, decoding and the connection never panic, what is
//! decoded survives being encoded, and how the stream is cut makes no difference.
use link::{
    Connection, HEADER_LEN, MAX_BODY, Message, OUTPUT_LIMIT, Role, Settings, decode_frame,
    encode_frame,
};

fn end(role: Role) -> Connection {
    let settings = Settings {
        role,
        name: "fuzz".into(),
        instance: 1,
        payload_prefix: 0,
        key: None,
    };
    Connection::new(settings, 0)
}

/// An end whose link is established, as far as it knows.
fn established(role: Role) -> Connection {
    let mut this = end(role);
    let peer = end(if role == Role::Engine {
        Role::Intercept
    } else {
        Role::Engine
    });
    this.receive(peer.output(), 0)
        .expect("a hello of this version is accepted");
    this
}

/// What a connection makes of a stream that is cut into pieces of `step` bytes.
fn outcome(
    mut connection: Connection,
    stream: &[u8],
    step: usize,
) -> (Vec<Message>, Option<link::Error>) {
    let mut error = None;
    for piece in stream.chunks(step) {
        if let Err(e) = connection.receive(piece, 1) {
            // A wrong magic is refused at its first byte: how much of it is quoted depends on the
            // cuts.
            error = Some(match e {
                link::Error::Magic { .. } => link::Error::Magic { found: [0; 4] },
                other => other,
            });
            break;
        }
        assert!(connection.output().len() <= OUTPUT_LIMIT + 2 * MAX_BODY);
        // After a goodbye everything is refused, so where the cuts are would show.
        if connection.has_ended() {
            break;
        }
    }
    let messages = std::iter::from_fn(|| connection.next_message()).collect();
    (messages, error)
}

/// Judges one input; panics if something does not hold.
pub fn run(data: &[u8]) {
    // As it is, and behind a right frame header, which random bytes seldom have.
    let mut framed = Vec::new();
    if let Some((kind, body)) = data.split_first() {
        let body = &body[..body.len().min(MAX_BODY)];
        framed.extend_from_slice(b"RPLK");
        framed.extend_from_slice(&[link::VERSION, kind % 12]);
        framed.extend_from_slice(&(body.len() as u16).to_be_bytes());
        framed.extend_from_slice(body);
    }
    for bytes in [data, &framed] {
        if let Ok(Some((message, n))) = decode_frame(bytes) {
            assert!((HEADER_LEN..=bytes.len()).contains(&n));
            let mut again = Vec::new();
            encode_frame(&message, &mut again).expect("what fitted into a frame fits again");
            assert_eq!(decode_frame(&again), Ok(Some((message, again.len()))));
        }
        for role in [Role::Engine, Role::Intercept] {
            outcome(end(role), bytes, bytes.len().max(1));
            let whole = outcome(established(role), bytes, bytes.len().max(1));
            assert_eq!(outcome(established(role), bytes, 3), whole);
        }
    }
}
