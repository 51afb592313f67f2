//! An object store to test with.

use std::process::{Child, Command, Stdio};

use tempo_testkit::{
    http_client::{self, Client},
    ports::free_address,
};

use crate::support::{eventually, required_env};

/// An S3 server in memory, with one empty bucket; killed when dropped.
pub(crate) struct S3 {
    pub(crate) address: String,
    process: Child,
}

impl S3 {
    pub(crate) fn start() -> Self {
        let address = free_address().unwrap();
        let port = address.rsplit(':').next().unwrap().to_owned();
        let process = Command::new(required_env("TEMPO_TEST_PYTHON"))
            .args(["-m", "moto.server", "-H", "127.0.0.1", "-p", &port])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let server = Self { address, process };
        eventually("the S3 server has a bucket", || {
            let mut client = Client::connect(&server.address).ok()?;
            let answer = client.request("PUT", "/traces", &[], &[]).ok()?;
            (answer.status == 200).then_some(())
        });
        server
    }

    /// Settings of a process that reaches the bucket at `address`.
    pub(crate) fn yaml(address: &str) -> String {
        format!(
            "    backend: s3\n    s3:\n      bucket: traces\n      endpoint: {address}\n      insecure: true\n      forcepathstyle: true\n      region: us-east-1\n      access_key: a\n      secret_key: b\n"
        )
    }

    pub(crate) fn blocks(&self) -> usize {
        let listing = http_client::get(&self.address, "/traces?list-type=2")
            .unwrap()
            .text();
        listing.matches("/meta.json</Key>").count()
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
