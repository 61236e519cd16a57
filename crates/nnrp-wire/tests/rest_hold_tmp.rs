mod support;
#[test]
fn hold() {
    let (server, _g) = support::serve(nnrp_wire::ServerSettings { http_port: Some(18999), grpc_port: Some(18998), threads: 0, ..support::settings() });
    std::thread::sleep(std::time::Duration::from_secs(std::env::var("HOLD").ok().and_then(|s| s.parse().ok()).unwrap_or(0)));
    drop(server);
}
