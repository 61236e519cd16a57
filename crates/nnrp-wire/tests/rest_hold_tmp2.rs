mod support;
use std::io::{Read, Write};
use std::time::Instant;
#[test]
fn client_speed() {
    let (server, _g) = support::serve(nnrp_wire::ServerSettings { threads: 1, ..support::settings() });
    let client = nnrp_wire::Client::connect(&format!("http://{}", server.http_address().unwrap())).unwrap();
    for (n, rounds) in [(16usize, 20000), (150_528, 1500)] {
        let x: Vec<f32> = (0..n).map(|i| i as f32).collect();
        let (h, b) = support::binary(&x);
        let bytes = support::post(support::INFER, &h, &b);
        for turn in 0..3 {
        let mut raw = std::net::TcpStream::connect(server.http_address().unwrap()).unwrap();
        raw.set_nodelay(true).unwrap();
        let mut buf = vec![0u8; 1 << 20];
        let mut t = Vec::new();
        let mut total = 0;
        for i in 0..rounds {
            let s = Instant::now();
            raw.write_all(&bytes).unwrap();
            if i == 0 {
                let c = raw.read(&mut buf).unwrap();
                let head = buf[..c].windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4;
                let text = String::from_utf8_lossy(&buf[..head]).to_lowercase();
                let len: usize = text.split("content-length: ").last().unwrap().split("\r\n").next().unwrap().parse().unwrap();
                let len: usize = text.lines().find(|l| l.starts_with("content-length")).map(|l| l[16..].parse().unwrap()).unwrap_or(len);
                total = head + len;
                let mut got = c;
                while got < total { got += raw.read(&mut buf[got..]).unwrap(); }
            } else {
                let mut got = 0;
                while got < total { got += raw.read(&mut buf[got..]).unwrap(); }
            }
            t.push(s.elapsed().as_nanos());
        }
        t.sort();
        let rawp = t[t.len() / 2] as f64 / 1000.0;
        let data = nnrp_core::tensor::values_to_bytes(x.clone());
        let mut t = Vec::new();
        for _ in 0..rounds {
            let tensor = nnrp_core::Tensor::shared(nnrp_core::Datatype::Fp32, &[n as i64], data.clone());
            let s = Instant::now();
            let r = nnrp_core::Request { model: "double".into(), inputs: [nnrp_core::Input { name: "x".into(), tensor }].into_iter().collect(), ..Default::default() };
            let a = client.infer(r).unwrap();
            t.push(s.elapsed().as_nanos());
            assert_eq!(a.outputs[0].tensor.shape[0], n as i64);
        }
        t.sort();
        let p = t[t.len() / 2] as f64 / 1000.0;
        println!("{n} raw p50 {rawp:.1} client p50 {p:.1} ratio {:.2} (turn {turn})", p / rawp);
        }
    }
}
