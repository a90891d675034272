//! `skipc serve`: answers of the OpenAI API, what is refused, and what happens when clients go or the server has to.
#![cfg(feature = "cranelift")]

#[path = "serve/server.rs"]
mod server;

use std::io::{Read, Write};
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use server::{PATIENCE, Reply, Server, example, post, skipc};
use skipc_testkit::tamper;

const PROMPT: &str = "And God said";

/// What `skipc generate` adds to a prompt.
fn generated(prompt: &str, count: u32) -> String {
    let count = count.to_string();
    let output = skipc(&["generate", example(), "--prompt", prompt, "--max-new-tokens", &count]);
    let text = String::from_utf8(output.stdout).expect("text");
    text.strip_prefix(prompt).expect("the prompt").trim_end_matches('\n').to_owned()
}

fn text(reply: &Reply) -> String {
    reply.json()["choices"][0]["text"].as_str().expect("a text").to_owned()
}

#[test]
fn a_completion_is_that_of_generate_whole_and_in_pieces() {
    let server = Server::start(&[]);
    let expected = generated(PROMPT, 40);
    let ask = json!({"prompt": PROMPT, "max_tokens": 40, "temperature": 0, "user": "me", "echo": false});
    let whole = server.complete(&ask).json();
    assert_eq!(whole["choices"][0]["text"], expected);
    assert_eq!(
        (&whole["object"], &whole["choices"][0]["finish_reason"]),
        (&json!("text_completion"), &json!("length"))
    );
    assert_eq!(whole["usage"], json!({"prompt_tokens": 12, "completion_tokens": 40, "total_tokens": 52}));

    let mut streamed = ask.clone();
    streamed["stream"] = true.into();
    streamed["stream_options"] = json!({"include_usage": true});
    let reply = server.complete(&streamed);
    assert!(reply.head.contains("text/event-stream"), "{}", reply.head);
    let mut events = reply.events();
    assert_eq!(events.pop().unwrap()["usage"], whole["usage"]);
    let pieces: String = events.iter().map(|event| event["choices"][0]["text"].as_str().unwrap()).collect();
    assert_eq!(pieces, expected);
    assert_eq!(events.last().unwrap()["choices"][0]["finish_reason"], "length");

    // As token ids, and as two prompts of one request.
    let ids: Vec<u32> = PROMPT.bytes().map(u32::from).collect();
    assert_eq!(text(&server.complete(&json!({"prompt": ids, "max_tokens": 40, "temperature": 0}))), expected);
    let both = json!({"prompt": ["In the", PROMPT], "max_tokens": 40, "temperature": 0});
    let both = server.complete(&both).json();
    assert_eq!(both["choices"][0]["text"], generated("In the", 40));
    assert_eq!((&both["choices"][1]["index"], &both["choices"][1]["text"]), (&json!(1), &json!(expected)));

    assert_eq!(server.get("/health").json(), json!({"status": "ok"}));
    let models = server.get("/v1/models").json();
    assert_eq!(models["data"][0]["id"], whole["model"]);
    let one = server.get(&format!("/v1/models/{}", whole["model"].as_str().unwrap()));
    assert_eq!(one.json(), models["data"][0]);
    assert_eq!(server.get("/v1/models/other").status, 404);
    assert!(server.metric("skipc_new_tokens_total") >= 39.0 * 4.0);
    let page = server.get("/metrics").body;
    assert_eq!(page.matches("\nskipc_executed_share{layer=\"blocks.").count(), 9, "{page}");
    assert!((0.5..4.5).contains(&server.metric("skipc_executed_share")), "{page}");
}

#[test]
fn stops_seeds_several_choices_and_probabilities() {
    let server = Server::start(&[]);
    let greedy = generated(PROMPT, 40);
    let stop = &greedy[10..14];
    let ask = json!({"prompt": PROMPT, "max_tokens": 40, "temperature": 0, "stop": [stop, "\u{1}"]});
    let stopped = server.complete(&ask).json();
    let until = greedy.split(stop).next().unwrap();
    assert_eq!(
        stopped["choices"][0],
        json!({"index": 0, "text": until, "logprobs": null, "finish_reason": "stop"})
    );

    let draw = |seed: i64, n: u32| {
        let ask = json!({"prompt": PROMPT, "max_tokens": 24, "temperature": 0.9, "top_p": 0.95, "seed": seed, "n": n});
        let choices = server.complete(&ask).json()["choices"].as_array().unwrap().clone();
        choices.iter().map(|choice| choice["text"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let three = draw(1, 3);
    assert!(three[0] != three[1] && three[1] != three[2], "{three:?}");
    assert_eq!((draw(1, 3), draw(1, 1)), (three.clone(), three[..1].to_vec()));
    assert_ne!(draw(-2, 1), draw(1, 1));
    let free = json!({"prompt": PROMPT, "max_tokens": 24});
    assert_ne!(text(&server.complete(&free)), text(&server.complete(&free)), "no seed, no fixed text");

    let ask = json!({"prompt": PROMPT, "max_tokens": 8, "temperature": 0, "logprobs": 3});
    let rows = &server.complete(&ask).json()["choices"][0]["logprobs"];
    assert_eq!(rows["text_offset"], json!([0, 1, 2, 3, 4, 5, 6, 7]));
    for at in 0..8 {
        let (token, logprob) = (rows["tokens"][at].as_str().unwrap(), &rows["token_logprobs"][at]);
        assert_eq!(token, &greedy[at..=at]);
        let top = rows["top_logprobs"][at].as_object().unwrap();
        assert!(top.len() == 3 && &top[token] == logprob, "{top:?}");
        let values: Vec<f64> = top.values().map(|value| value.as_f64().unwrap()).collect();
        let sum: f64 = values.iter().map(|value| value.exp()).sum();
        assert!(
            sum <= 1.0 + 1e-9 && values.iter().all(|value| *value <= logprob.as_f64().unwrap()),
            "{values:?}"
        );
    }
}

#[test]
fn a_chat_is_a_prompt_by_the_template() {
    let mut server = Server::start(&[]);
    let expected = generated(PROMPT, 20);
    let parts = json!([{"type": "text", "text": "God "}, {"type": "text", "text": "said"}]);
    let mut ask = json!({
        "messages": [{"role": "system", "content": "And "}, {"role": "user", "content": parts}],
        "max_completion_tokens": 20,
        "temperature": 0,
        "logprobs": true,
        "top_logprobs": 1,
    });
    let whole = server.post("/v1/chat/completions", ask.to_string()).json();
    assert_eq!(whole["object"], "chat.completion");
    assert_eq!(
        whole["choices"][0]["message"],
        json!({"role": "assistant", "content": expected, "refusal": null})
    );
    let rows = whole["choices"][0]["logprobs"]["content"].as_array().unwrap();
    assert!(rows.len() == 20 && rows[0]["bytes"] == json!([expected.as_bytes()[0]]), "{rows:?}");
    ask["stream"] = true.into();
    let events = server.post("/v1/chat/completions", ask.to_string()).events();
    assert_eq!(events[0]["choices"][0]["delta"], json!({"role": "assistant", "content": ""}));
    let pieces =
        events.iter().map(|event| event["choices"][0]["delta"]["content"].as_str().unwrap_or_default());
    assert_eq!(pieces.collect::<String>(), expected);

    let generate = |template: &str| {
        let chat = ["--chat", "--chat-template", template, "--max-new-tokens", "20"];
        skipc(&[&["generate", example(), "--prompt", PROMPT], &chat[..]].concat())
    };
    let output = generate(&server.file("template").display().to_string());
    assert_eq!(String::from_utf8_lossy(&output.stdout), format!("{expected}\n"));
    let output = skipc(&["generate", example(), "--prompt", PROMPT, "--chat"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("run::no-chat-template"));

    std::fs::write(server.file("strict"), "{{ raise_exception('no system') }}").unwrap();
    server = Server::start(&["--chat-template", &server.file("strict").display().to_string()]);
    let refused = server.post("/v1/chat/completions", ask.to_string());
    assert_eq!((refused.status, refused.code().as_str()), (400, "run::chat-template"));
}

#[test]
fn requests_at_once_give_what_each_gives_alone() {
    let server = Server::start(&["--slots", "3", "--cache-tokens", "256"]);
    let prompts = [
        "In the beginning",
        "And",
        "The LORD is my shepherd; I shall not",
        "a",
        "And God said, Let",
        "Jesus",
    ];
    let ask = |prompt: &str| json!({"prompt": prompt, "max_tokens": 48, "temperature": 0.7, "seed": 5});
    let alone: Vec<String> = prompts.iter().map(|prompt| text(&server.complete(&ask(prompt)))).collect();
    std::thread::scope(|scope| {
        let asking = |prompt: &'static str| {
            let (server, body) = (&server, ask(prompt));
            scope.spawn(move || text(&server.complete(&body)))
        };
        let threads: Vec<_> = prompts.iter().cycle().take(18).map(|prompt| asking(prompt)).collect();
        for (thread, expected) in threads.into_iter().zip(alone.iter().cycle()) {
            assert_eq!(&thread.join().unwrap(), expected);
        }
    });
    server.wait_for("skipc_pages{state=\"used\"}", 0.0);
}

#[test]
fn prompts_that_begin_alike_run_once() {
    let server = Server::start(&[]);
    let prompt = "The LORD is my shepherd; I shall not want. He maketh me to lie down in green pastures";
    let ask = json!({"prompt": prompt, "max_tokens": 20, "temperature": 0});
    let first = text(&server.complete(&ask));
    assert_eq!(server.metric("skipc_prefix_cached_tokens_total"), 0.0);
    assert_eq!(text(&server.complete(&ask)), first);
    let whole_pages = (prompt.len() - 1) / 16 * 16;
    assert_eq!(server.metric("skipc_prefix_cached_tokens_total"), whole_pages as f64);
    assert_eq!(server.metric("skipc_prompt_tokens_total"), (2 * prompt.len() - whole_pages) as f64);
    assert_eq!(generated(prompt, 20), first);
    let other = json!({"prompt": format!("Z{prompt}"), "max_tokens": 20, "temperature": 0});
    assert_eq!(text(&server.complete(&other)), generated(&format!("Z{prompt}"), 20));
    assert_eq!(server.metric("skipc_prefix_cached_tokens_total"), whole_pages as f64);
    assert!(server.metric("skipc_pages{state=\"kept\"}") >= 10.0);
}

/// Status, code and place of each request that is refused for what it says.
#[test]
fn what_a_request_says_wrong_is_refused() {
    let server = Server::start(&["--slots", "2", "--queue", "1"]);
    let long = "a".repeat(2000);
    for (path, body, status, code, word) in [
        ("completions", r#"{"prompt": "a""#, 400, "invalid_json", "line 1 column 14"),
        ("completions", "[]", 400, "invalid_json", "object"),
        ("completions", "", 400, "invalid_json", "EOF"),
        ("completions", "{}", 400, "missing_key", "prompt"),
        ("completions", r#"{"prompt": 1}"#, 400, "invalid_value", "prompt"),
        ("completions", r#"{"prompt": []}"#, 400, "invalid_value", "prompt"),
        ("completions", r#"{"prompt": ""}"#, 400, "run::empty-prompt", "at least one"),
        ("completions", r#"{"prompt": [999]}"#, 400, "run::token-range", "999"),
        ("completions", r#"{"prompt": "a", "temperature": -1}"#, 400, "run::usage", "temperature"),
        ("completions", r#"{"prompt": "a", "top_p": 0}"#, 400, "run::usage", "top-p"),
        ("completions", r#"{"prompt": "a", "max_tokens": -1}"#, 400, "invalid_value", "max_tokens"),
        ("completions", r#"{"prompt": "a", "n": 0}"#, 400, "invalid_value", "`n`"),
        ("completions", r#"{"prompt": "a", "n": 4}"#, 400, "invalid_value", "takes 3"),
        ("completions", r#"{"prompt": "a", "stop": [""]}"#, 400, "invalid_value", "stop"),
        ("completions", r#"{"prompt": "a", "logprobs": 21}"#, 400, "invalid_value", "logprobs"),
        ("completions", r#"{"prompt": "a", "stream_options": {}}"#, 400, "invalid_value", "stream"),
        ("completions", r#"{"prompt": "a", "best_of": 2}"#, 400, "unsupported_key", "best_of"),
        ("completions", r#"{"prompt": "a", "suffix": "b"}"#, 400, "unsupported_key", "suffix"),
        (
            "completions",
            r#"{"prompt": "a", "max_token": 1}"#,
            400,
            "unknown_key",
            "did you mean `max_tokens`",
        ),
        ("completions", r#"{"prompt": "a", "model": "gpt"}"#, 404, "model_not_found", "gpt"),
        ("chat/completions", "{}", 400, "missing_key", "messages"),
        ("chat/completions", r#"{"messages": []}"#, 400, "invalid_value", "messages"),
        ("chat/completions", r#"{"messages": [{"content": "a"}]}"#, 400, "invalid_value", "messages[0]"),
        (
            "chat/completions",
            r#"{"messages": [{"role": "user", "content": 1}]}"#,
            400,
            "invalid_value",
            "content",
        ),
        (
            "chat/completions",
            r#"{"messages": [{"role": "user", "content": "a"}], "top_logprobs": 1}"#,
            400,
            "invalid_value",
            "logprobs",
        ),
        (
            "chat/completions",
            r#"{"messages": [{"role": "user", "content": "a"}], "tools": [{}]}"#,
            400,
            "unsupported_key",
            "tools",
        ),
        ("other", "{}", 404, "unknown_path", "/v1/other"),
        ("models", "{}", 405, "wrong_method", "POST"),
    ] {
        let reply = server.post(&format!("/v1/{path}"), body);
        assert_eq!((reply.status, reply.code().as_str()), (status, code), "{body}: {reply:?}");
        assert!(reply.body.contains(word), "{word}: {reply:?}");
    }
    let reply = server.post("/v1/completions", json!({"prompt": long}).to_string());
    assert_eq!((reply.status, reply.code().as_str()), (400, "context_length_exceeded"));
    assert_eq!(server.get("/v1/completions").status, 405);
    assert_eq!(server.metric("skipc_requests_running"), 0.0);
}

#[test]
fn logits_that_are_no_numbers_fail_the_request() {
    // Constants of NaN, as no compile would pass them.
    let file = std::fs::read(example()).unwrap();
    let broken = tamper::with_sections(&file, |name, bytes| {
        (name == "cpu/constants").then(|| vec![0xff; bytes.len()])
    });
    let folder = tempfile::TempDir::new().unwrap();
    let path = folder.path().join("broken.skp");
    std::fs::write(&path, broken).unwrap();
    let server = Server::of(&path.display().to_string(), &[]);
    for n in [1, 2] {
        let reply = server.post("/v1/completions", json!({"prompt": "a", "n": n}).to_string());
        assert_eq!((reply.status, reply.code().as_str()), (500, "run::non-finite"), "{reply:?}");
    }
}

#[test]
fn requests_beyond_bounds_are_refused() {
    let server = Server::start(&["--slots", "1", "--queue", "0", "--timeout", "1"]);
    let body = vec![b' '; (4 << 20) + 1];
    let reply = server.post("/v1/completions", body);
    assert_eq!((reply.status, reply.code().as_str()), (413, "body_too_large"));
    let wide = format!("GET /health HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "y".repeat(40 << 10));
    let many = format!("GET /health HTTP/1.1\r\nhost: x\r\n{}\r\n", "x: y\r\n".repeat(101));
    for request in [wide, many] {
        let reply = server.exchange(request.as_bytes());
        assert_eq!((reply.status, reply.code().as_str()), (431, "headers_too_large"));
    }
    // Headers that do not end, and a body that does not.
    for request in [
        "GET /health HTTP/1.1\r\nhost: x\r\n",
        "POST /v1/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 9\r\n\r\n{",
    ] {
        let begun = Instant::now();
        let reply = server.exchange(request.as_bytes());
        assert_eq!((reply.status, reply.code().as_str()), (408, "timeout"), "{request}");
        assert!(begun.elapsed() >= Duration::from_millis(900), "{:?}", begun.elapsed());
    }
    // Nothing at all is no request.
    let mut silent = server.connect();
    let mut answer = Vec::new();
    silent.read_to_end(&mut answer).unwrap();
    assert_eq!(answer, b"");

    let server = Server::start(&["--slots", "1", "--queue", "0"]);
    let running = server.begin(&json!({"prompt": "a", "max_tokens": 1000, "stream": true}));
    let reply = server.post("/v1/completions", r#"{"prompt": "a"}"#);
    assert_eq!((reply.status, reply.code().as_str()), (429, "queue_full"));
    assert!(reply.head.to_ascii_lowercase().contains("retry-after: 1"), "{}", reply.head);
    drop(running);
}

#[test]
fn only_who_has_a_key_is_let_in() {
    let folder = tempfile::TempDir::new().unwrap();
    let keys = folder.path().join("keys");
    std::fs::write(&keys, "first key\n\n second \n").unwrap();
    let keys = keys.display().to_string();
    let server = Server::start(&["--api-key-file", &keys]);
    let ask = |header: &str| {
        server.exchange(&post("/v1/completions", header, br#"{"prompt": "a", "max_tokens": 1}"#))
    };
    for header in ["", "authorization: Bearer first\r\n", "authorization: first key\r\n"] {
        let reply = ask(header);
        assert_eq!((reply.status, reply.code().as_str()), (401, "invalid_api_key"), "{header}");
    }
    assert_eq!(ask("authorization: Bearer first key\r\n").status, 200);
    assert_eq!(ask("authorization: bearer second\r\n").status, 200);
    assert_eq!((server.get("/health").status, server.get("/metrics").status), (200, 401));
    std::fs::write(folder.path().join("empty"), "\n").unwrap();
    let empty = folder.path().join("empty").display().to_string();
    let output = skipc(&["serve", example(), "--port", "0", "--api-key-file", &empty]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("serve::api_keys"));
}

#[test]
fn a_cache_that_does_not_fit_and_a_taken_port_are_refused_at_the_start() {
    let output = skipc(&["serve", example(), "--port", "0", "--cache-tokens", "4000000000"]);
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(message.contains("run::cache-memory") && message.contains("MiB"), "{message}");
    let server = Server::start(&[]);
    let port = server.address.rsplit(':').next().unwrap();
    let output = skipc(&["serve", example(), "--port", port]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("serve::address"));
}

/// SplitMix64.
struct Rng(u64);

impl Rng {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) % n as u64) as usize
    }
}

/// A request that is wrong somewhere between its first line and the meaning of its numbers.
fn malformed(rng: &mut Rng) -> Vec<u8> {
    let mut body =
        json!({"prompt": "And God", "max_tokens": 4, "temperature": 0.5, "n": 1, "seed": 3, "stream": false});
    let path = "/v1/completions";
    let keys =
        ["prompt", "max_tokens", "temperature", "n", "seed", "stream", "stop", "logprobs", "top_p", "top_k"];
    let key = keys[rng.below(keys.len())];
    match rng.below(7) {
        0 => {
            let text = body.to_string();
            post(path, "", &text.as_bytes()[..rng.below(text.len())])
        }
        1 => {
            let mut text = body.to_string().into_bytes();
            let at = rng.below(text.len());
            text[at] = [0, 7, 0x80, 0xff][rng.below(4)];
            post(path, "", &text)
        }
        2 => {
            body[key] = [json!({}), json!([[["a"]]]), json!({"a": [1]}), json!([null]), json!([{}])]
                [rng.below(5)]
            .clone();
            post(path, "", body.to_string().as_bytes())
        }
        3 => {
            body[format!("{key}{}", rng.below(1000))] = json!(1);
            post(path, "", body.to_string().as_bytes())
        }
        4 => {
            let wrong = [
                ("temperature", -1.5),
                ("top_p", 7.0),
                ("n", 1e6),
                ("max_tokens", -4.0),
                ("logprobs", 99.0),
                ("seed", 0.5),
            ];
            let (key, value) = wrong[rng.below(wrong.len())];
            body[key] = json!(value);
            post(path, "", body.to_string().as_bytes())
        }
        5 => {
            let depth = 200 + rng.below(2000);
            post(path, "", format!("{{\"prompt\": {}", "[".repeat(depth)).as_bytes())
        }
        _ => {
            let line = [
                "POST",
                "POST /v1/completions",
                "POST /v1/completions HTTP/9.9",
                "POST /v1/\u{1}completions HTTP/1.1",
                "\u{7f}\u{1}\u{2} / HTTP/1.1",
                "GET /v1/completions HTTP/1.1\r\nno colon",
                "POST /v1/completions HTTP/1.1\r\ncontent-length: many",
                "POST /v1/completions HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2",
                "GET /etc/passwd HTTP/1.1\r\nconnection: close",
            ][rng.below(9)];
            format!("{line}\r\n\r\n").into_bytes()
        }
    }
}

#[test]
fn a_thousand_malformed_requests_are_refused_with_a_reason() {
    let server = Server::start(&[]);
    let mut rng = Rng(11);
    let mut codes = std::collections::BTreeMap::<String, usize>::new();
    for _ in 0..1000 {
        let request = malformed(&mut rng);
        let reply = server.exchange(&request);
        let shown = String::from_utf8_lossy(&request);
        assert!((400..500).contains(&reply.status), "{reply:?} to {shown}");
        *codes.entry(reply.code()).or_default() += 1;
    }
    assert!(codes.len() >= 6 && codes["invalid_http"] > 50, "{codes:?}");
    assert_eq!(server.complete(&json!({"prompt": "a", "max_tokens": 1})).status, 200);
    assert_eq!(server.metric("skipc_new_tokens_total"), 0.0, "none of them ran");
}

#[test]
fn who_hangs_up_frees_the_slot() {
    let server = Server::start(&["--slots", "2", "--queue", "0"]);
    for stream in [true, false] {
        for _ in 0..3 {
            let ask = json!({"prompt": "In", "max_tokens": 1000, "stream": stream, "n": 2, "temperature": 0});
            let connection = match stream {
                true => server.begin(&ask).into_inner(),
                false => {
                    let mut connection = server.connect();
                    connection.write_all(&post("/v1/completions", "", ask.to_string().as_bytes())).unwrap();
                    connection
                }
            };
            // Events of a step come before it is counted.
            server.wait_for("skipc_requests_running", 2.0);
            drop(connection);
            server.wait_for("skipc_requests_running", 0.0);
            server.wait_for("skipc_pages{state=\"used\"}", 0.0);
        }
    }
    let new = server.metric("skipc_new_tokens_total");
    assert!(new < 6.0 * 2.0 * 900.0, "{new} tokens: the requests ran to their ends");
    assert_eq!(server.complete(&json!({"prompt": "a", "max_tokens": 1, "n": 2})).status, 200);
}

#[test]
fn a_signal_lets_what_runs_finish() {
    let mut server = Server::start(&["--slots", "2"]);
    let ask = json!({"prompt": "In", "max_tokens": 900, "stream": true, "temperature": 0});
    let mut running: Vec<_> = (0..2).map(|_| server.begin(&ask)).collect();
    let waiting = {
        let mut connection = server.connect();
        connection.write_all(&post("/v1/completions", "", br#"{"prompt": "In", "max_tokens": 4}"#)).unwrap();
        server.wait_for("skipc_requests_waiting", 1.0);
        connection
    };
    server.terminate();
    let begun = Instant::now();
    while server.get("/health").status == 200 {
        assert!(begun.elapsed() < PATIENCE, "the signal changes nothing");
        sleep(Duration::from_millis(5));
    }
    let reply = server.post("/v1/completions", r#"{"prompt": "a"}"#);
    assert_eq!((reply.status, reply.code().as_str()), (503, "stopping"));
    for reader in &mut running {
        let mut rest = String::new();
        reader.read_to_string(&mut rest).unwrap();
        assert!(rest.contains("data: [DONE]"), "{rest}");
    }
    let mut answer = Vec::new();
    (&waiting).read_to_end(&mut answer).unwrap();
    assert_eq!(Reply::parse(&answer).status, 200);
    let (status, last) = server.wait();
    assert!(status.success());
    assert_eq!(last, json!({"event": "stopped", "unfinished": 0}));
}

#[test]
fn a_signal_gives_up_what_takes_too_long() {
    let mut server = Server::start(&["--grace", "0"]);
    let mut reader = server.begin(&json!({"prompt": "In", "max_tokens": 1000, "stream": true}));
    server.terminate();
    let mut rest = String::new();
    reader.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("\"stopping\"") && !rest.contains("[DONE]"), "{rest}");
    let (status, last) = server.wait();
    assert!(status.success());
    assert_eq!(last, json!({"event": "stopped", "unfinished": 1}));
}

/// The client that most programs have.
#[test]
fn the_official_client_gets_completions_and_chats() {
    let setup = Command::new("tests/serve/setup.sh").output().expect("the script starts");
    assert!(setup.status.success(), "{}", String::from_utf8_lossy(&setup.stderr));
    let python = String::from_utf8(setup.stdout).expect("a path").trim().to_owned();
    let server = Server::start(&[]);
    let model = server.get("/v1/models").json()["data"][0]["id"].as_str().unwrap().to_owned();
    let base = format!("http://{}/v1", server.address);
    let output =
        Command::new(python).arg("tests/serve/client.py").args([&base, &model, PROMPT]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let got: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let expected = generated(PROMPT, 12);
    let joined = |key: &str| -> String {
        got[key].as_array().unwrap().iter().map(|piece| piece.as_str().unwrap()).collect()
    };
    assert_eq!(
        (&got["models"], &got["text"], &got["finish"]),
        (&json!([model]), &json!(expected), &json!("length"))
    );
    assert_eq!((&got["usage"], &got["last_usage"]), (&json!(24), &json!(12)));
    assert_eq!((joined("pieces"), joined("chat_pieces")), (expected.clone(), expected.clone()));
    assert_eq!((&got["chat"], &got["chat_logprobs"]), (&json!(expected), &json!(12)));
    assert_eq!(got["token_logprobs"].as_array().map(Vec::len), Some(12));
    assert_eq!(got["refused"], json!([400, "unknown_key"]));
}
