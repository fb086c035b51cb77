//! A provider of embeddings that takes a while for each request, and counts: for `bench/memo.sh`. Its first
//! argument is the time in milliseconds. It prints its URL, and then, for each line that it reads, how
//! many requests and inputs there were since the last.

#[path = "../tests/support/http.rs"]
mod http;
#[path = "../tests/support/provider.rs"]
mod provider;

use std::time::Duration;

fn main() {
    let delay = std::env::args().nth(1).and_then(|ms| ms.parse().ok()).unwrap_or(0);
    let provider = provider::Provider::start();
    provider.delay(Duration::from_millis(delay));
    println!("{}", provider.url());
    for _ in std::io::stdin().lines().map_while(Result::ok) {
        let counts = provider.counts();
        println!("{} {}", counts.requests, counts.inputs);
        provider.forget();
    }
}
