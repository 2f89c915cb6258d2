//! The kernel's part: a classic BPF program that returns the number of the socket.

use std::io;
use std::net::UdpSocket;

/// The bit of the first byte that tells a long header (RFC 9000, section 17.2).
pub(super) const LONG_HEADER: u8 = 0x80;
/// Where the destination's connection id begins.
pub(super) const LONG_AT: usize = 6;
pub(super) const SHORT_AT: usize = 1;

/// An instruction, as in `linux/filter.h`.
#[derive(Clone, Copy, Debug)]
struct Instruction {
    code: u16,
    if_true: u8,
    if_false: u8,
    operand: u32,
}

/// Loads a byte of the datagram, whose first is byte 0. If there is none the program ends with 0.
const LOAD_BYTE: u16 = 0x30;
/// Jumps by whether any of these bits is set.
const JUMP_IF_SET: u16 = 0x45;
const JUMP: u16 = 0x05;
const MODULO: u16 = 0x94;
const RETURN: u16 = 0x16;

#[expect(
    clippy::cast_possible_truncation,
    reason = "there are at most sixteen workers, and the offsets are small"
)]
fn program(workers: usize) -> [Instruction; 7] {
    let plain = |code, operand: usize| Instruction {
        code,
        if_true: 0,
        if_false: 0,
        operand: operand as u32,
    };
    let is_long = plain(JUMP_IF_SET, usize::from(LONG_HEADER));
    [
        plain(LOAD_BYTE, 0),
        Instruction { if_false: 2, ..is_long },
        plain(LOAD_BYTE, LONG_AT),
        plain(JUMP, 1),
        plain(LOAD_BYTE, SHORT_AT),
        plain(MODULO, workers.max(1)),
        plain(RETURN, 0),
    ]
}

#[cfg(target_os = "linux")]
pub(super) fn attach(socket: &UdpSocket, workers: usize) -> io::Result<()> {
    use nix::libc::{sock_filter, sock_fprog};
    use nix::sys::socket::{setsockopt, sockopt::AttachReusePortCbpf};

    let mut filter = program(workers).map(|instruction| {
        let Instruction { code, if_true: jt, if_false: jf, operand: k } = instruction;
        sock_filter { code, jt, jf, k }
    });
    let len = filter.len().try_into().map_err(io::Error::other)?;
    // The kernel copies the program.
    let program = sock_fprog { len, filter: filter.as_mut_ptr() };
    Ok(setsockopt(socket, AttachReusePortCbpf, &program)?)
}

#[cfg(not(target_os = "linux"))]
pub(super) fn attach(_socket: &UdpSocket, _workers: usize) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(test)]
mod tests {
    use super::super::worker_of;
    use super::*;
    use proptest::prelude::*;

    /// What the kernel makes of a datagram.
    fn run(program: &[Instruction], datagram: &[u8]) -> usize {
        let (mut at, mut register) = (0, 0_u32);
        loop {
            let Instruction { code, if_true, if_false, operand } = program[at];
            at += 1;
            match code {
                LOAD_BYTE => match datagram.get(operand as usize) {
                    Some(&byte) => register = byte.into(),
                    None => return 0,
                },
                JUMP_IF_SET => {
                    at += usize::from(if register & operand != 0 { if_true } else { if_false });
                }
                JUMP => at += operand as usize,
                MODULO => register %= operand,
                RETURN => return register as usize,
                other => panic!("{other:#x} is no instruction of ours"),
            }
        }
    }

    #[test]
    fn the_first_byte_of_the_destinations_id_chooses_the_worker() {
        let initial = [0xc3, 0, 0, 0, 1, 20, 5, 9, 9, 9];
        let short = [0x43, 6, 1, 2, 3];

        let chosen = |datagram: &[u8]| run(&program(4), datagram);

        assert_eq!((chosen(&initial), chosen(&short)), (1, 2));
        assert_eq!((chosen(&[]), chosen(&[0xc3, 0, 0]), chosen(&[0x43])), (0, 0, 0));
    }

    proptest! {
        #[test]
        fn the_kernel_and_the_sockets_choose_alike(
            datagram in proptest::collection::vec(any::<u8>(), 0..12), workers in 1_usize..=16,
        ) {
            prop_assert_eq!(run(&program(workers), &datagram), worker_of(&datagram, workers));
        }
    }
}
