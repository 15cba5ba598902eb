//! A real browser: headless Chromium, driven over its DevTools protocol on two pipes.
//!
//! Only what scenes need: open a page, run script in it, type, take a picture, and hear what its WebSockets do.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread,
    time::Instant,
};

use serde_json::{Value, json};

use crate::support::PATIENCE;

/// A browser with one page.
pub struct Browser {
    process: Child,
    _profile: tempfile::TempDir,
    commands: ChildStdin,
    messages: Receiver<Value>,
    session: Option<String>,
    next: u64,
    /// The page's WebSockets by the browser's name for them.
    pub sockets: BTreeMap<String, Socket>,
    /// What failed in the page: scripts, and requests.
    errors: Vec<String>,
}

/// What one WebSocket of the page went through.
#[derive(Clone, Debug, Default)]
pub struct Socket {
    pub url: String,
    pub closed: bool,
    /// Payloads of the frames that came, one after another.
    pub received: String,
}

impl Browser {
    /// Starts Chromium with a new profile. Names under `.test` lead to this machine, and certificates are not verified.
    pub fn start() -> Self {
        let profile = tempfile::tempdir().unwrap();
        let mut process = Command::new("sh")
            // The protocol's pipes are descriptors 3 and 4.
            .args(["-c", "exec chromium \"$@\" 3<&0 4>&1 </dev/null >/dev/null", "sh"])
            .args(["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"])
            .args(["--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage"])
            .args(["--ignore-certificate-errors", "--host-resolver-rules=MAP *.test 127.0.0.1", "--remote-debugging-pipe"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut answers = BufReader::new(process.stdout.take().unwrap());
        let (sender, messages) = channel();
        thread::spawn(move || {
            let mut message = Vec::new();
            while answers.read_until(0, &mut message).is_ok_and(|length| length > 0) {
                message.pop();
                if sender.send(serde_json::from_slice(&message).unwrap()).is_err() {
                    return;
                }
                message.clear();
            }
        });
        let commands = process.stdin.take().unwrap();
        let mut browser = Self {
            process,
            _profile: profile,
            commands,
            messages,
            session: None,
            next: 0,
            sockets: BTreeMap::new(),
            errors: Vec::new(),
        };
        let target = browser.call("Target.createTarget", &json!({ "url": "about:blank" }));
        let attached = browser.call("Target.attachToTarget", &json!({ "targetId": target["targetId"], "flatten": true }));
        browser.session = Some(attached["sessionId"].as_str().unwrap().to_owned());
        for domain in ["Page.enable", "Network.enable", "Runtime.enable"] {
            browser.call(domain, &json!({}));
        }
        browser
    }

    pub fn open(&mut self, url: &str) {
        let answer = self.call("Page.navigate", &json!({ "url": url }));
        assert!(answer.get("errorText").is_none(), "{url}: {answer}");
    }

    /// The value of a script's expression.
    pub fn evaluate(&mut self, script: &str) -> Value {
        let parameters = json!({ "expression": script, "returnByValue": true, "awaitPromise": true });
        let answer = self.call("Runtime.evaluate", &parameters);
        assert!(answer.get("exceptionDetails").is_none(), "{script}: {answer}");
        answer["result"]["value"].clone()
    }

    /// Types where the page's focus is, key by key.
    pub fn type_keys(&mut self, text: &str) {
        for character in text.chars() {
            self.call("Input.dispatchKeyEvent", &json!({ "type": "char", "text": character.to_string() }));
        }
    }

    /// Listens to the page until `done` gives something of its sockets.
    pub fn until<T>(&mut self, what: &str, mut done: impl FnMut(&BTreeMap<String, Socket>) -> Option<T>) -> T {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = done(&self.sockets) {
                return found;
            }
            match self.messages.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(message) => self.hear(&message),
                Err(RecvTimeoutError::Disconnected) => panic!("the browser ended while waiting for: {what}"),
                Err(RecvTimeoutError::Timeout) => {
                    let page = self.evaluate("document.location + '\\n' + document.body.innerText");
                    panic!(
                        "not within {PATIENCE:?}: {what}; the page: {page}\nits sockets: {:#?}\nits errors: {:#?}",
                        self.sockets, self.errors
                    )
                }
            }
        }
    }

    /// Hears all that came up to now.
    pub fn catch_up(&mut self) {
        while let Ok(message) = self.messages.try_recv() {
            self.hear(&message);
        }
    }

    fn call(&mut self, method: &str, parameters: &Value) -> Value {
        self.next += 1;
        let id = self.next;
        let mut message = json!({ "id": id, "method": method, "params": parameters });
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        let mut line = message.to_string().into_bytes();
        line.push(0);
        self.commands.write_all(&line).expect("chromium runs (Debian's package chromium)");
        loop {
            let message =
                self.messages.recv_timeout(PATIENCE).unwrap_or_else(|error| panic!("{method}: {error}; is chromium installed?"));
            if message["id"] == json!(id) {
                assert!(message.get("error").is_none(), "{method}: {message}");
                return message["result"].clone();
            }
            self.hear(&message);
        }
    }

    fn hear(&mut self, message: &Value) {
        let parameters = &message["params"];
        let name = parameters["requestId"].as_str().unwrap_or_default();
        match message["method"].as_str() {
            Some("Network.webSocketCreated") => {
                let url = parameters["url"].as_str().unwrap_or_default().to_owned();
                self.sockets.insert(name.to_owned(), Socket { url, ..Socket::default() });
            }
            Some("Network.webSocketClosed") => {
                if let Some(socket) = self.sockets.get_mut(name) {
                    socket.closed = true;
                }
            }
            Some("Network.webSocketFrameReceived") => {
                if let Some(socket) = self.sockets.get_mut(name) {
                    socket.received.push_str(parameters["response"]["payloadData"].as_str().unwrap_or_default());
                }
            }
            Some("Runtime.exceptionThrown") => {
                self.errors.push(parameters["exceptionDetails"]["exception"]["description"].to_string());
            }
            Some("Network.loadingFailed") => self.errors.push(format!("{}: {}", parameters["type"], parameters["errorText"])),
            _ => {}
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
