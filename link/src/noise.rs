//! Authentication and encryption with a shared key: the Noise pattern `NNpsk0` (Noise Protocol
//! Framework, revision 34, sections 7.5 and 9).
//!
//! The engine is the initiator. The prologue is both hellos, engine's first, so a hello that was
//! changed on its way makes the handshake fail.

use crate::Error;
use snow::{Builder, HandshakeState, TransportState};

const PATTERN: &str = "Noise_NNpsk0_25519_ChaChaPoly_BLAKE2s";

/// Room for a handshake message: an ephemeral public key and a tag.
const HANDSHAKE_ROOM: usize = 96;

/// Bytes that sealing adds.
const TAG: usize = 16;

/// A handshake under way.
pub(crate) struct Handshake(Box<HandshakeState>);

/// The keys of both directions after the handshake.
pub(crate) struct Sealer(Box<TransportState>);

fn internal(e: snow::Error) -> Error {
    Error::Noise(e.to_string())
}

impl Handshake {
    pub(crate) fn new(initiator: bool, key: &[u8; 32], prologue: &[u8]) -> Result<Self, Error> {
        let params = PATTERN.parse().map_err(internal)?;
        let builder = Builder::new(params)
            .psk(0, key)
            .and_then(|b| b.prologue(prologue))
            .map_err(internal)?;
        let state = if initiator {
            builder.build_initiator()
        } else {
            builder.build_responder()
        };
        Ok(Self(Box::new(state.map_err(internal)?)))
    }

    /// This end's next message.
    pub(crate) fn write(&mut self) -> Result<Vec<u8>, Error> {
        let mut message = vec![0; HANDSHAKE_ROOM];
        let n = self.0.write_message(&[], &mut message).map_err(internal)?;
        message.truncate(n);
        Ok(message)
    }

    /// Takes the peer's message. It fails if the peer has another key, or heard other hellos than
    /// this end.
    pub(crate) fn read(&mut self, message: &[u8]) -> Result<(), Error> {
        let mut payload = [0; HANDSHAKE_ROOM];
        match self.0.read_message(message, &mut payload) {
            Ok(_) => Ok(()),
            Err(_) => Err(Error::WrongKey),
        }
    }

    pub(crate) fn finish(self) -> Result<Sealer, Error> {
        Ok(Sealer(Box::new(
            self.0.into_transport_mode().map_err(internal)?,
        )))
    }
}

impl Sealer {
    /// Appends `plain`, sealed, to `out`.
    pub(crate) fn seal(&mut self, plain: &[u8], out: &mut Vec<u8>) -> Result<(), Error> {
        let start = out.len();
        out.resize(start + plain.len() + TAG, 0);
        let room = out.get_mut(start..).unwrap_or_default();
        match self.0.write_message(plain, room) {
            Ok(n) => {
                out.truncate(start + n);
                Ok(())
            }
            Err(e) => {
                out.truncate(start);
                Err(internal(e))
            }
        }
    }

    /// Opens a sealed message into `plain`, which is overwritten.
    pub(crate) fn open(&mut self, sealed: &[u8], plain: &mut Vec<u8>) -> Result<(), Error> {
        plain.clear();
        plain.resize(sealed.len(), 0);
        let n = self
            .0
            .read_message(sealed, plain)
            .map_err(|_| Error::Sealed)?;
        plain.truncate(n);
        Ok(())
    }
}
