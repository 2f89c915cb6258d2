//! Messages on a QUIC stream: protobuf behind its length as four bytes, big-endian.

use prost::Message;
use quinn::{ReadExactError, RecvStream, SendStream};

/// Bytes read at a time, so that a length alone makes nobody allocate.
const CHUNK_BYTES: usize = 64 << 10;

/// Why no message was read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    /// The stream or its connection ended within a message.
    #[error("the stream broke off: {0}")]
    Stream(#[from] ReadExactError),
    /// The message is longer than allowed.
    #[error("a message of {bytes} bytes, where {bytes_max} are allowed")]
    TooLong { bytes: usize, bytes_max: usize },
    /// The bytes are no such message.
    #[error("an undecodable message: {0}")]
    Decode(#[from] prost::DecodeError),
}

/// Reads the next message, or `None` if the stream ended before one. Not to be cancelled and resumed.
pub(crate) async fn read<M: Message + Default>(
    stream: &mut RecvStream,
    bytes_max: usize,
) -> Result<Option<M>, ReadError> {
    let mut prefix = [0; 4];
    match stream.read_exact(&mut prefix).await {
        Ok(()) => {}
        Err(ReadExactError::FinishedEarly(0)) => return Ok(None),
        Err(error) => return Err(error.into()),
    }
    let bytes = usize::try_from(u32::from_be_bytes(prefix)).unwrap_or(usize::MAX);
    if bytes > bytes_max {
        return Err(ReadError::TooLong { bytes, bytes_max });
    }
    let mut message = Vec::with_capacity(bytes.min(CHUNK_BYTES));
    while message.len() < bytes {
        let start = message.len();
        message.resize(bytes.min(start + CHUNK_BYTES), 0);
        stream.read_exact(&mut message[start..]).await?;
    }
    Ok(Some(M::decode(&message[..])?))
}

/// Writes a message.
pub(crate) async fn write<M: Message>(
    stream: &mut SendStream,
    message: &M,
) -> Result<(), quinn::WriteError> {
    let bytes = message.encode_to_vec();
    let prefix = u32::try_from(bytes.len()).expect("messages are far below 4 GB").to_be_bytes();
    stream.write_all(&prefix).await?;
    stream.write_all(&bytes).await
}
