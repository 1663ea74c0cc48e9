//! The flights through an S3 server that someone else wrote: `moto`, from PyPI, as a judge who does
//! not know what we expect of him.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Command;

use crate::harness::{Running, free_address, wait_until};
use crate::long_term::tiers_and_reads_back;
use crate::lost_machine::comes_back_from_its_bucket;
use crate::s3::{SECRET, URL, borrowed, settings};

/// Where `scripts/moto` puts it.
fn program() -> PathBuf {
    let home = std::env::var("HOME").unwrap();
    let program = PathBuf::from(home).join(".cache/braid-moto/bin/moto_server");
    assert!(
        program.is_file(),
        "`{}` is not there; run `scripts/moto`, which installs it (Debian: python3-venv)",
        program.display()
    );
    program
}

/// A request without a body; whether it was answered with 200.
fn ask(address: SocketAddr, line: &str) -> bool {
    let Ok(mut connection) = TcpStream::connect(address) else { return false };
    let request = format!(
        "{line} HTTP/1.1\r\nhost: {address}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    );
    let mut answer = String::new();
    let asked = connection.write_all(request.as_bytes());
    asked.and_then(|()| connection.read_to_string(&mut answer)).is_ok()
        && answer.starts_with("HTTP/1.1 200")
}

/// A server of its own with an empty bucket, until it is dropped.
struct Moto {
    address: SocketAddr,
    _process: Running,
}

impl Moto {
    fn start() -> Self {
        let address = free_address();
        let mut moto = Command::new(program());
        moto.args(["-H", "127.0.0.1", "-p", &address.port().to_string()]);
        let process = Running::spawn(&mut moto);
        wait_until("the server of moto", || ask(address, "GET /moto-api/data.json"));
        assert!(ask(address, "PUT /bucket"), "a bucket is made");
        Self { address, _process: process }
    }

    fn settings(&self) -> Vec<(String, String)> {
        settings(self.address, URL, SECRET)
    }
}

#[test]
fn on_moto_the_flights_are_read_back_from_objects_with_and_without_the_state() {
    let moto = Moto::start();
    tiers_and_reads_back(&borrowed(&moto.settings()));
}

#[test]
fn on_moto_a_lost_machine_comes_back_with_what_was_tiered() {
    let moto = Moto::start();
    comes_back_from_its_bucket(&borrowed(&moto.settings()), URL);
}
