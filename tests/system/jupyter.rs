//! A real application that lives on WebSockets, in a real browser, over TLS: a notebook of Jupyter.
//!
//! A cell typed in the page is run by a kernel, whose answers come on the page's WebSocket. (The terminal would do as well, but its page
//! fails on its own in Debian 12: `exports is not defined` in `static/terminal/js/main.min.js` of jupyter-notebook 6.4.12.)

use std::{
    fmt::Write as _,
    fs,
    net::TcpStream,
    path::Path,
    process::{Child, Command, Stdio},
};

use crate::{
    browser::Browser,
    support::{Penstock, eventually, free_port, https_request, own_address, served_certificate, write},
};

/// In the URL of a kernel's WebSocket.
const CHANNELS: &str = "/channels?";
const EDITS: usize = 100;
const OWN_EDITS: usize = 20;

/// A running Jupyter server that asks for no password; ended when dropped.
struct Jupyter {
    process: Child,
    url: String,
    _home: tempfile::TempDir,
}

impl Jupyter {
    fn start() -> Self {
        let home = tempfile::tempdir().unwrap();
        // Not on loopback: there it would refuse names other than localhost.
        let (address, port) = (own_address(), free_port());
        let empty = r#"{"cells": [], "metadata": {"kernelspec": {"name": "python3", "display_name": "Python 3"}}, "nbformat": 4, "nbformat_minor": 5}"#;
        fs::write(home.path().join("test.ipynb"), empty).unwrap();
        let log = fs::File::create(home.path().join("log")).unwrap();
        let mut process = Command::new("/usr/bin/jupyter-notebook")
            .args([
                "--no-browser",
                "--allow-root",
                "--NotebookApp.token=",
                "--NotebookApp.password=",
                "--NotebookApp.port_retries=0",
            ])
            .args([format!("--ip={address}"), format!("--port={port}"), format!("--notebook-dir={}", home.path().display())])
            .env("HOME", home.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("jupyter-notebook runs (Debian's package jupyter-notebook)");
        eventually("Jupyter listens", || {
            let ended = process.try_wait().unwrap();
            assert!(ended.is_none(), "{}", fs::read_to_string(home.path().join("log")).unwrap());
            TcpStream::connect((address, port)).ok()
        });
        Self { process, url: format!("http://{address}:{port}"), _home: home }
    }
}

impl Drop for Jupyter {
    fn drop(&mut self) {
        // Asked kindly, it ends its kernels too.
        let _ = Command::new("kill").arg(self.process.id().to_string()).status();
        let _ = self.process.wait();
    }
}

/// A notebook in a page; the one WebSocket that it was opened with has to last.
struct Notebook {
    browser: Browser,
    socket: String,
    commands: u32,
}

impl Notebook {
    fn open(url: &str) -> Self {
        let mut browser = Browser::start();
        browser.open(&format!("{url}/notebooks/test.ipynb"));
        let socket = browser.until("the page opens its WebSocket and the kernel is ready", |sockets| {
            let open = sockets.iter().find(|(_, socket)| socket.url.contains(CHANNELS));
            open.filter(|(_, socket)| socket.received.contains("\"idle\"")).map(|(name, _)| name.clone())
        });
        let mut notebook = Self { browser, socket, commands: 0 };
        notebook.command();
        notebook
    }

    /// Types a command and runs it; its answer must come on the first WebSocket, and no socket may have closed.
    fn command(&mut self) {
        self.commands += 1;
        let browser = &mut self.browser;
        let focus = "(() => { const cell = Jupyter.notebook.get_cells().at(-1); cell.focus_cell(); cell.edit_mode(); cell.focus_editor(); return cell.code_mirror.hasFocus() })()";
        eventually("the last cell can be typed in", || browser.evaluate(focus).as_bool().filter(|focused| *focused));
        browser.type_text(&format!("print('answer', 1000 + {})", self.commands));
        browser.press_shift_enter();
        let (socket, expected) = (self.socket.clone(), format!("answer {}", 1000 + self.commands));
        browser.until("the command answers", |sockets| sockets[&socket].received.contains(&expected).then_some(()));
        browser.catch_up();
        let closed: Vec<_> = browser.sockets.values().filter(|socket| socket.closed).collect();
        assert!(closed.is_empty(), "closed: {closed:#?}");
        let opened = browser.sockets.values().filter(|socket| socket.url.contains(CHANNELS)).count();
        assert_eq!(opened, 1, "the page had to open another");
    }
}

fn certificate(folder: &Path) -> Vec<u8> {
    let made = rcgen::generate_simple_self_signed(vec!["nb.test".to_owned()]).unwrap();
    // The key and the chain are two files, so they do not fit each other for a moment: what was served goes on.
    write(&folder.join("tls.key"), &made.signing_key.serialize_pem());
    write(&folder.join("tls.crt"), &made.cert.pem());
    made.cert.der().to_vec()
}

#[test]
fn a_notebook_in_a_browser_stays_while_its_certificate_is_renewed() {
    let jupyter = Jupyter::start();
    let folder = tempfile::tempdir().unwrap();
    certificate(folder.path());
    let file = |name: &str| folder.path().join(name).display().to_string();
    let (cert, key) = (file("tls.crt"), file("tls.key"));
    let penstock = Penstock::start(&["proxy", "--from", "nb.test", "--to", &jupyter.url, "--cert", &cert, "--key", &key]);
    let mut notebook = Notebook::open(&format!("https://nb.test:{}", penstock.https.port()));
    for _ in 0..OWN_EDITS {
        let renewed = certificate(folder.path());
        eventually("the renewed certificate is served", || {
            (served_certificate(penstock.https, "nb.test") == renewed).then_some(())
        });
    }
    notebook.command();
}

#[test]
fn a_notebook_in_a_browser_stays_through_a_hundred_edits() {
    let jupyter = Jupyter::start();
    let folder = tempfile::tempdir().unwrap();
    let own = |version: usize| {
        format!(
            "apiVersion: penstock.dev/v1alpha1\nkind: ProxyRoute\nmetadata: {{name: notebook}}\nspec:\n  hosts: [nb.test]\n  tls: {{selfSigned: true}}\n  rules:\n  - matches: [{{path: {{type: Exact, value: /version}}}}]\n    respond: {{code: 200, body: \"{version}\"}}\n  - backends: [{{url: \"{}\"}}]\n    timeouts: {{connect: {}s}}\n",
            jupyter.url,
            1 + version
        )
    };
    let other = |version: usize| {
        let mut text = String::new();
        for name in ["one", "two"] {
            let _ = write!(
                text,
                "---\napiVersion: penstock.dev/v1alpha1\nkind: ProxyRoute\nmetadata: {{name: {name}}}\nspec: {{hosts: [{name}.test], rules: [{{respond: {{code: 200, body: \"{version}\"}}}}]}}\n"
            );
        }
        text
    };
    let (own_file, other_file) = (folder.path().join("own.yaml"), folder.path().join("other.yaml"));
    write(&own_file, &own(0));
    write(&other_file, &other(0));
    let penstock = Penstock::start(&["serve", folder.path().to_str().unwrap()]);
    let mut notebook = Notebook::open(&format!("https://nb.test:{}", penstock.https.port()));
    for edit in 1..=EDITS {
        let host = if edit % (EDITS / OWN_EDITS) == 0 {
            write(&own_file, &own(edit));
            "nb.test"
        } else {
            write(&other_file, &other(edit));
            "two.test"
        };
        eventually("the edit is live", || {
            (https_request(penstock.https, host, "/version") == (200, edit.to_string())).then_some(())
        });
        if edit % 25 == 0 {
            notebook.command();
        }
    }
}
