#!/usr/bin/env python3
"""Replays scenarios against an Ingress controller, records what it does, compares two recordings.

  replay.py record  --kubeconfig KC --out DIR [--http IP:80] [--https IP:443] [--class nginx] [--only REGEX] [--webhook 127.0.0.1:8443]
  replay.py compare ORACLEDIR OTHERDIR [--only REGEX] [--essential] [--bodies] [--admission] [--differences]
  replay.py show DIR NAME

Runs where the API server, the controller and 10.88.0.1 can be reached (ip netns exec NS ...). The backends are inside this process.
Scenario format: README.md."""
import warnings; warnings.simplefilter('ignore')
import argparse, base64, collections, copy, glob, hashlib, http.client, http.server, json, os, re, socket, ssl, subprocess, sys, tempfile, threading, time, uuid
import yaml

HERE = os.path.dirname(os.path.abspath(__file__))
NS = "t"
IP = os.environ.get("BACKEND_IP", "10.88.0.1")
P = "nginx.ingress.kubernetes.io/"
BASE_CM = {"worker-processes": "1", "worker-shutdown-timeout": "5s"}
# name: (port, kind, addresses)
BACKENDS = {"a": (9001, "echo", [IP]), "b": (9002, "echo", [IP]), "c": (9003, "echo", [IP]), "err": (9004, "err", [IP]), "auth": (9005, "auth", [IP]),
            "sync": (9006, "echo", [IP]), "multi": (9007, "echo", ["10.88.0.1", "10.88.0.2", "10.88.0.3"]), "tls": (9443, "tls", [IP]), "tls2": (9444, "tls", [IP]), "tls3": (9445, "tls", [IP]), "tls4": (9446, "tls", [IP]), "tls5": (9447, "tls", [IP]), "tls6": (9448, "tls", [IP]),
            "dead": (9099, None, [IP]), "half": (9098, None, [IP, "10.88.0.2"]), "none": (9097, None, []), "b2": (9012, "echo", [IP]), "b3": (9013, "echo", [IP]), "c2": (9014, "echo", [IP]), "c3": (9015, "echo", [IP]), "multi2": (9016, "echo", ["10.88.0.1", "10.88.0.2", "10.88.0.3"]), "multi3": (9017, "echo", ["10.88.0.1", "10.88.0.2", "10.88.0.3"]), "multi4": (9018, "echo", ["10.88.0.1", "10.88.0.2", "10.88.0.3"]), "slow": (9008, "echo", [IP])}

# ---------------------------------------------------------------- backends
hits, hits_lock = [], threading.Lock()

def note(h):
    with hits_lock: hits.append(h)

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def log_message(self, *a): pass
    def parse_request(self):
        ok = super().parse_request()
        return ok
    def any(self):
        n, kind = self.server.who
        la = self.connection.getsockname()[0]
        who = n if len(BACKENDS[n][2]) < 2 and n != "half" else "%s@%s" % (n, la)
        te = self.headers.get("Transfer-Encoding", "")
        body = b""; self.connection.settimeout(2)
        try:
            if "chunked" in te.lower():
                while True:
                    l = self.rfile.readline().strip()
                    k = int(l.split(b";")[0], 16)
                    if k == 0:
                        while self.rfile.readline().strip(): pass
                        break
                    body += self.rfile.read(k); self.rfile.readline()
            elif self.headers.get("Content-Length"): body = self.rfile.read(int(self.headers["Content-Length"]))
        except Exception as e: body += b"<cut %s>" % type(e).__name__.encode()
        hit = {"backend": who, "line": norm(self.requestline), "headers": sorted([k.lower(), v] for k, v in self.headers.items())}
        if isinstance(self.connection, ssl.SSLSocket): hit["tls"] = {"sni": getattr(self.connection, "sni_name", None), "client_cert": bool(self.connection.getpeercert(binary_form=True)), "version": self.connection.version()}
        self.connection.settimeout(None)
        if body: hit["body"] = body.decode("latin1") if len(body) <= 200 else "%d bytes %s" % (len(body), hashlib.sha1(body).hexdigest()[:8])
        note(hit)
        self.close_connection = False
        if self.headers.get("Upgrade", "").lower() == "websocket" and "upgrade" in self.headers.get("Connection", "").lower():
            self.connection.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nX-Echo: %s\r\n\r\n" % who.encode())
            self.close_connection = True
            while True:
                d = self.connection.recv(65536)
                if not d: return
                self.connection.sendall(d)
        q = dict(x.partition("=")[::2] for x in self.path.partition("?")[2].split("&") if x)
        from urllib.parse import unquote_plus
        st = int(self.headers.get("X-Echo-Status") or 200)
        m = re.match(r"/st([1-5]\d\d)", self.path)
        if m: st = int(m.group(1))
        if kind == "err": st = int(self.headers.get("X-Code") or 404) if "keep200" not in self.path else 200
        if kind == "auth": st = int(q.get("code") or self.headers.get("X-Auth-Code") or 200)
        if self.headers.get("X-Echo-Delay"): time.sleep(float(self.headers["X-Echo-Delay"]))
        out = b"echo" if kind != "err" else b"errpage"
        if self.headers.get("X-Echo-Size"): out = b"x" * int(self.headers["X-Echo-Size"])
        if self.headers.get("X-Echo-Body"): out = self.headers["X-Echo-Body"].encode()
        hs = [("Content-Type", "text/plain"), ("X-Echo", who)]
        eh = self.headers.get_all("X-Echo-Header") or []
        for k in ("h", "h2", "h3"):
            if q.get(k): eh.append(unquote_plus(q[k]))
        for k in q.get("set", "").split(","):
            if k: eh.append({"user": "X-User: joe", "sid": "Set-Cookie: sid=1; Path=/", "two": "Set-Cookie: two=2", "www": "WWW-Authenticate: Bearer realm=x", "why": "X-Why: no", "denied": "Set-Cookie: denied=1"}[k])
        for h in eh:
            for one in h.split(" ;; "):
                k, _, v = one.partition(":"); k = k.strip()
                hs = [x for x in hs if x[0].lower() != k.lower() or k.lower() == "set-cookie"] + [(k, big(v.strip()))]
        w = ["HTTP/1.1 %d %s" % (st, http.client.responses.get(st, "X"))] + ["%s: %s" % x for x in hs]
        nobody = st in (204, 304)
        if not nobody and not any(x[0].lower() == "content-length" for x in hs): w.append("Content-Length: %d" % len(out))
        self.connection.sendall("\r\n".join(w).encode("latin1") + b"\r\n\r\n" + (b"" if nobody or self.command == "HEAD" else out))
    def __getattr__(self, n):
        if n.startswith("do_"): return self.any
        raise AttributeError(n)

class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True; allow_reuse_address = True; request_queue_size = 256
    def handle_error(self, *a): pass
    def get_request(self):
        s, a = super().get_request()
        if self.ctx:
            s.settimeout(5)
            s = self.ctx.wrap_socket(s, server_side=True)
            s.settimeout(None)
        return s, a

def mkcert(cn, sans, ca=None, extra="", expired=False):
    """(crt, key) PEM; self-signed, or signed by ca=(crt, key)"""
    with tempfile.TemporaryDirectory() as d:
        f = lambda n: os.path.join(d, n)
        r = lambda *a: subprocess.run(a, check=True, capture_output=True)
        r("openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", f("k"))
        r("openssl", "pkcs8", "-topk8", "-nocrypt", "-in", f("k"), "-out", f("k8"))
        ext = "basicConstraints=CA:%s\n" % ("TRUE" if extra == "ca" else "FALSE") + ("subjectAltName=" + ",".join("DNS:" + s for s in sans) if sans else "")
        open(f("e"), "w").write(ext)
        r("openssl", "req", "-new", "-key", f("k"), "-subj", "/CN=" + cn, "-out", f("r"))
        a = ["openssl", "x509", "-req", "-in", f("r"), "-days", "-1" if expired else "30", "-extfile", f("e"), "-out", f("c")]
        if ca:
            open(f("cac"), "w").write(ca[0]); open(f("cak"), "w").write(ca[1]); a += ["-CA", f("cac"), "-CAkey", f("cak"), "-CAcreateserial"]
        else: a += ["-signkey", f("k")]
        r(*a)
        return open(f("c")).read(), open(f("k8")).read()

def start_backends():
    crt, key = cert_for("backend.test", ["backend.test"], "up")
    up = certs_ca("up")[0]
    t = tempfile.NamedTemporaryFile("w", suffix=".pem", delete=False); t.write(crt + key); t.close()
    for n, (port, kind, addrs) in BACKENDS.items():
        if not kind:
            if n == "half": addrs = [IP]
            else: continue
        else: addrs = ["0.0.0.0"]
        s = Server((addrs[0], port), Handler); s.who = (n, kind or "echo"); s.ctx = None
        if kind == "tls":
            s.ctx = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER); s.ctx.load_cert_chain(t.name); s.ctx.verify_mode = ssl.CERT_OPTIONAL; s.ctx.load_verify_locations(cadata=up)
            def sni(sock, name, c): sock.sni_name = name
            s.ctx.sni_callback = sni
        threading.Thread(target=s.serve_forever, daemon=True).start()

# ---------------------------------------------------------------- kubernetes
PLURAL = {"Ingress": ("/apis/networking.k8s.io/v1", "ingresses"), "Service": ("/api/v1", "services"), "EndpointSlice": ("/apis/discovery.k8s.io/v1", "endpointslices"),
          "Secret": ("/api/v1", "secrets"), "ConfigMap": ("/api/v1", "configmaps"), "Namespace": ("/api/v1", "namespaces"), "IngressClass": ("/apis/networking.k8s.io/v1", "ingressclasses")}
CLUSTER = {"Namespace", "IngressClass"}

class Kube:
    def __init__(self, path):
        c = yaml.safe_load(open(path)); cl = c["clusters"][0]["cluster"]; u = c["users"][0]["user"]
        self.host = cl["server"].split("//")[1]
        self.ctx = ssl.create_default_context(cadata=base64.b64decode(cl["certificate-authority-data"]).decode())
        with tempfile.NamedTemporaryFile("wb") as t:
            t.write(base64.b64decode(u["client-certificate-data"]) + b"\n" + base64.b64decode(u["client-key-data"])); t.flush()
            self.ctx.load_cert_chain(t.name)
        self.c = None
        self.lock = threading.Lock()
    def call(self, m, path, body=None):
        for i in (0, 1):
            try:
                if not self.c: self.c = http.client.HTTPSConnection(self.host, context=self.ctx, timeout=20)
                self.c.request(m, path, json.dumps(body) if body is not None else None, {"Content-Type": "application/json"})
                r = self.c.getresponse(); d = r.read()
                return r.status, json.loads(d) if d else {}
            except (http.client.HTTPException, OSError):
                self.c = None
                if i: raise
    def url(self, o, name=True):
        g, p = PLURAL[o["kind"]]
        ns = "" if o["kind"] in CLUSTER else "/namespaces/" + o["metadata"].get("namespace", NS)
        return g + ns + "/" + p + ("/" + o["metadata"]["name"] if name else "")
    def put(self, o):
        s, r = self.call("POST", self.url(o, False), o)
        if s == 409 and r.get("reason") == "AlreadyExists":
            _, cur = self.call("GET", self.url(o)); o = copy.deepcopy(o); o["metadata"]["resourceVersion"] = cur["metadata"]["resourceVersion"]
            if o["kind"] == "Service": o["spec"]["clusterIP"] = cur["spec"].get("clusterIP")
            s, r = self.call("PUT", self.url(o), o)
        return None if s < 300 else r.get("message", str(s))
    def delete(self, o): self.call("DELETE", self.url(o))

def meta(kind, name, api="v1", **kw): return dict({"apiVersion": api, "kind": kind, "metadata": {"name": name, "namespace": kw.pop("namespace", NS)}}, **kw)

def service(name, port, addrs, ns=NS, svcport=80):
    s = meta("Service", name, namespace=ns, spec={"ports": [{"name": "http", "port": svcport, "targetPort": port, "protocol": "TCP"}]})
    e = meta("EndpointSlice", name + "-1", "discovery.k8s.io/v1", namespace=ns, addressType="IPv4", ports=[{"name": "http", "port": port, "protocol": "TCP"}],
             endpoints=[{"addresses": [a], "conditions": {"ready": True}} for a in addrs])
    e["metadata"]["labels"] = {"kubernetes.io/service-name": name}
    return [s, e]

TYPES = {"E": "Exact", "P": "Prefix", "I": "ImplementationSpecific"}

def backend(s):
    n, _, p = s.partition(":"); p = p or "80"
    return {"service": {"name": n, "port": {"number": int(p)} if p.isdigit() else {"name": p}}}

def ingress(i, sc, cls):
    """shorthand -> manifest: {name, host|hosts, paths: ["/p [E|P|I] [svc[:port]]"], ann, tls, class, default, ns}"""
    o = meta("Ingress", i.get("name", "i"), "networking.k8s.io/v1", namespace=i.get("ns", NS), spec={})
    o["metadata"]["annotations"] = {(k if "/" in k else P + k): str(v) if not isinstance(v, bool) else str(v).lower() for k, v in (i.get("ann") or {}).items()}
    c = i.get("class", "field")
    if c == "field": o["spec"]["ingressClassName"] = cls
    elif c == "annotation": o["metadata"]["annotations"]["kubernetes.io/ingress.class"] = cls
    elif c: o["spec"]["ingressClassName"] = c
    if i.get("default"): o["spec"]["defaultBackend"] = backend(i["default"])
    hosts = i.get("hosts") or [i.get("host", sc["name"] + ".test")]
    rules = []
    if i.get("paths", True) is not None:
        for h in hosts:
            r = {"host": h} if h else {}
            if i.get("paths", ["/"]):
                ps = []
                for p in i.get("paths", ["/"]):
                    f = p.split(" "); t = "Prefix"; svc = i.get("svc", "a")
                    for x in f[1:]:
                        if x in TYPES: t = TYPES[x]
                        else: svc = x
                    ps.append({"path": f[0], "pathType": t, "backend": backend(svc)})
                r["http"] = {"paths": ps}
            rules.append(r)
        o["spec"]["rules"] = rules
    t = i.get("tls")
    if t is True: o["spec"]["tls"] = [{"hosts": [h for h in hosts if h]}]
    elif isinstance(t, str): o["spec"]["tls"] = [{"hosts": [h for h in hosts if h], "secretName": t}]
    elif t: o["spec"]["tls"] = t
    return o

certs = {}
def cert_for(cn, sans, ca=None, expired=False):
    k = (cn, tuple(sans), ca, expired)
    if k not in certs: certs[k] = mkcert(cn, sans, certs_ca(ca) if ca else None, extra="ca" if cn.startswith("ca-") else "", expired=expired)
    return certs[k]
def certs_ca(name): return cert_for("ca-" + name, [])

CONTROLLER = ["k8s.io/ingress-nginx"]
def expand(sc, cls):
    """objects of a scenario in creation order; entries may be {'sleep': s}"""
    out = []
    for name, spec in (sc.get("secrets") or {}).items():
        if "cn" in spec:
            c, k = cert_for(spec["cn"], spec.get("sans", [spec["cn"]]), spec.get("ca"), spec.get("expired", False))
            data = {"tls.crt": c, "tls.key": k}
            if spec.get("withca"): data["ca.crt"] = certs_ca(spec["withca"])[0]
            typ = "kubernetes.io/tls"
        elif "cacert" in spec: data = {"ca.crt": certs_ca(spec["cacert"])[0]}; typ = "Opaque"
        else: data = spec.get("data", {}); typ = spec.get("type", "Opaque")
        out.append(meta("Secret", name, namespace=spec.get("ns", NS), type=typ, data={k: base64.b64encode(v.encode()).decode() for k, v in data.items()}))
    for name, data in (sc.get("configmaps") or {}).items():
        ns, _, n = name.rpartition("/"); out.append(meta("ConfigMap", n, namespace=ns or NS, data=data))
    for name, s in (sc.get("services") or {}).items(): out += service(name, s["port"], s.get("addrs", [IP]), s.get("ns", NS), s.get("svcport", 80))
    for o in sc.get("objects") or []:
        o = copy.deepcopy(o)
        if "kind" in o and o["kind"] not in CLUSTER: o["metadata"].setdefault("namespace", NS)
        if o.get("kind") == "Ingress" and o["spec"].get("ingressClassName") == "nginx": o["spec"]["ingressClassName"] = cls
        if o.get("kind") == "IngressClass" and o["spec"]["controller"] == "k8s.io/ingress-nginx": o["spec"]["controller"] = CONTROLLER[0]
        out.append(o)
    for i in sc.get("ingresses") or []: out.append(i if "sleep" in i else ingress(i, sc, cls))
    return out

# ---------------------------------------------------------------- requests
def parse_req(r, sc):
    if isinstance(r, str):
        f = r.split(" "); hd = {}
        rest = r.split(" ", 2)[2] if len(f) > 2 else ""
        for h in filter(None, rest.split(" | ")):
            k, _, v = h.partition(":"); hd[k.strip()] = v.strip()
        r = {"method": f[0], "path": f[1], "headers": hd}
    r = dict(r); r.setdefault("method", "GET"); r.setdefault("path", "/"); r.setdefault("headers", {}); r.setdefault("host", sc["name"] + ".test"); r.setdefault("scheme", sc.get("scheme", "http"))
    return r

IDRE = re.compile(r"\b[0-9a-f]{32}\b")
AFF = re.compile(r"[0-9]{10}\.[0-9]+\.[0-9]+\.[0-9]+(\||%7C)[0-9a-f]{32}")
EXP = re.compile(r"(expires=)[^;]+", re.I)
def norm(v):
    v = AFF.sub("<affinity>", v); v = EXP.sub(r"\1<time>", v)
    v = UUID.sub("<uuid>", NONCE.sub('nonce="<nonce>"', CERT.sub("<cert>", v)))
    v = RUN.sub(lambda m: "<b*%d>" % len(m.group(0)), v)
    return IDRE.sub("<id>", v)
RUN = re.compile(r"b{500,}"); NONCE = re.compile(r'nonce="[^"]*"'); CERT = re.compile(r"-----BEGIN%20CERT.*"); UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
def big(v): return re.sub(r"\bB(\d{4,5})\b", lambda m: "b" * int(m.group(1)), v)

def connect(r, a):
    https = r["scheme"] == "https"
    hp = (a.https if https or r.get("plain_on_tls") else a.http).rsplit(":", 1)
    s = socket.create_connection((hp[0], int(hp[1])), timeout=r.get("timeout", 10), source_address=(r.get("from", IP), 0))
    info = None
    if https:
        c = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT); c.check_hostname = False; c.verify_mode = ssl.CERT_NONE
        if r.get("alpn"): c.set_alpn_protocols(r["alpn"])
        if r.get("cert"):
            crt, key = cert_for(r["cert"]["cn"], [], r["cert"].get("ca"))
            with tempfile.NamedTemporaryFile("w") as t: t.write(crt + key); t.flush(); c.load_cert_chain(t.name)
        if r.get("tlsmax"): c.maximum_version = getattr(ssl.TLSVersion, r["tlsmax"]); c.minimum_version = ssl.TLSVersion.TLSv1; c.set_ciphers("ALL:@SECLEVEL=0")
        sni = r.get("sni", r["host"].split(":")[0])
        s = c.wrap_socket(s, server_hostname=sni or None)
        der = s.getpeercert(binary_form=True)
        p = subprocess.run(["openssl", "x509", "-inform", "der", "-noout", "-subject", "-ext", "subjectAltName"], input=der, capture_output=True).stdout.decode()
        m = re.search(r"CN = ([^\n,]+)", p); info = {"cn": m.group(1) if m else p.strip(), "sans": re.findall(r"DNS:([^,\s]+)", p), "version": s.version()}
    return s, info

def once(r, a):
    with hits_lock: hits.clear()
    ans = {}
    try:
        s, info = connect(r, a)
        if info: ans["tls"] = info
        h = {"Host": r["host"], "User-Agent": "t", "Accept": "*/*"}
        if r.get("ws"): h.update({"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="})
        hl = [[k, v] for k, v in h.items()]
        for k, v in (r["headers"].items() if isinstance(r["headers"], dict) else r["headers"]):
            if not isinstance(r["headers"], list): hl = [x for x in hl if x[0].lower() != k.lower()]
            if v is not None: hl.append([k, big(str(v))])
        body = r.get("body")
        if isinstance(body, int): body = "x" * body
        if body is not None:
            if r.get("chunked"): hl.append(["Transfer-Encoding", "chunked"])
            elif not any(x[0].lower() == "content-length" for x in hl): hl.append(["Content-Length", str(len(body.encode()))])
        msg = ("%s %s HTTP/%s\r\n" % (r["method"], big(r["path"]) if not "?h=" in r["path"] else r["path"], r.get("version", "1.1")) + "".join("%s: %s\r\n" % tuple(x) for x in hl) + "\r\n").encode("utf8")
        if r.get("raw"): msg = r["raw"].encode("latin1"); body = None
        if body is not None:
            b = body.encode()
            msg += (b"%x\r\n%s\r\n0\r\n\r\n" % (len(b), b) if r.get("chunked") else b)
        try: s.sendall(msg)
        except OSError: pass
        resp = http.client.HTTPResponse(s, method=r["method"]); resp.begin()
        ans["status"] = resp.status
        ans["headers"] = sorted([k.lower(), norm(v)] for k, v in resp.getheaders() if k.lower() not in ("date",))
        if resp.status == 101:
            s.sendall(b"hello"); got = resp.fp.read1(100) if hasattr(resp.fp, "read1") else b""
            ans["tunnel"] = got.decode("latin1")
        else:
            d = resp.read()
            ans["body"] = d.decode("latin1") if len(d) <= 800 else "%d bytes" % len(d)
        ans["by"] = "backend" if resp.getheader("X-Echo") else "proxy"
        s.close()
    except Exception as e: ans["error"] = "%s: %s" % (type(e).__name__, re.sub(r"\(_ssl.c.*", "", str(e)))
    time.sleep(0.03 if not r.get("settle") else r["settle"])
    with hits_lock: hh = copy.deepcopy(hits)
    for x in hh: x["headers"] = [[k, norm(v)] for k, v in x["headers"]]
    ans["hits"] = hh
    return ans

def sid(x): return "%s%s" % (x.get("status", x.get("error")), "".join(" " + h["backend"] for h in x.get("hits", [])))

def do_req(r, a):
    n = r.get("times", 1)
    if r.get("parallel"):
        res = [None] * n; ts = []
        def f(i): res[i] = once(r, a)
        for i in range(n): t = threading.Thread(target=f, args=(i,)); t.start(); ts.append(t)
        for t in ts: t.join()
        for x in res: x.pop("hits")
        return {"histogram": dict(collections.Counter(str(x.get("status", x.get("error"))) for x in res))}
    cookies = {}; res = []
    for i in range(n):
        rr = r
        if r.get("jar") and cookies: rr = dict(r, headers=dict(r["headers"], Cookie="; ".join("%s=%s" % x for x in cookies.items())))
        x = once_raw(rr, a, cookies); res.append(x)
        if r.get("pause"): time.sleep(r["pause"])
    if n == 1: return res[0]
    out = {"first": res[0], "histogram": dict(collections.Counter(sid(x) for x in res))}
    if r.get("sequence"): out["sequence"] = [sid(x) for x in res]
    if r.get("jar"):
        out["setcookies"] = [[v for k, v in x.get("headers", []) if k == "set-cookie"] for x in res]
        out["same_peer"] = len({sid(x) for x in res}) == 1
    return out

_raw_cookie = threading.local()
def once_raw(r, a, jar):
    global norm
    seen = []
    old = norm
    def n2(v):
        seen.append(v); return old(v)
    norm = n2
    try: x = once(r, a)
    finally: norm = old
    for v in seen:
        m = re.match(r"([A-Za-z0-9_.-]+)=([^;]+);", v)
        if m and ("HttpOnly" in v or "Path" in v): jar[m.group(1)] = m.group(2)
    return x

# ---------------------------------------------------------------- running
def sentinel(k, a, n, wait=12.0, scheme="http"):
    """an Ingress of its own, created after everything else: when it answers, the controller has caught up"""
    h = "sync-%s.test" % n
    k.put(ingress({"name": "zz-sync", "host": h, "paths": ["/"], "svc": "sync", "ann": {}}, {"name": n}, a.cls))
    end = time.time() + wait; t0 = time.time()
    while time.time() < end:
        x = once({"method": "GET", "path": "/", "headers": {}, "host": h, "scheme": scheme, "timeout": 3}, a)
        if x.get("status") == 200 and x["hits"] and x["hits"][-1]["backend"] == "sync": time.sleep(a.settle); return round(time.time() - t0, 1)
        time.sleep(0.1)
    return None

def review(a, o):
    if not a.webhook: return None
    rv = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {"uid": str(uuid.uuid4()), "kind": {"group": "networking.k8s.io", "version": "v1", "kind": "Ingress"},
          "resource": {"group": "networking.k8s.io", "version": "v1", "resource": "ingresses"}, "name": o["metadata"]["name"], "namespace": o["metadata"]["namespace"], "operation": "CREATE",
          "object": dict(o, metadata=dict(o["metadata"], uid=str(uuid.uuid4())))}}
    try:
        c = http.client.HTTPSConnection(a.webhook, context=ssl._create_unverified_context(), timeout=10)
        c.request("POST", "/networking/v1/ingresses", json.dumps(rv), {"Content-Type": "application/json"}); r = json.loads(c.getresponse().read())["response"]
        return True if r.get("allowed") else (r.get("status") or {}).get("message", "denied")
    except Exception as e: return "webhook: %s" % e

def run(sc, k, a, cur):
    made = []; rec = {}
    cm = dict(BASE_CM, **(sc.get("configmap") or {}))
    if cm != cur.get("cm"):
        ns, n = a.configmap.split("/"); k.put(meta("ConfigMap", n, namespace=ns, data={x: str(y) if not isinstance(y, bool) else str(y).lower() for x, y in cm.items()})); cur["cm"] = cm; time.sleep(0.4)
    prev = None
    for o in expand(sc, a.cls):
        if "sleep" in o: time.sleep(o["sleep"]); continue
        if o["kind"] == "Ingress":
            if prev not in (None, "Ingress"): time.sleep(0.25)
            if sc.get("admission", True) and a.webhook: rec.setdefault("admission", {})[o["metadata"]["name"]] = review(a, o)
        e = k.put(o)
        if e: rec.setdefault("apiserver", {})[o["metadata"]["name"]] = e
        else: made.append(o)
        prev = o["kind"]
    cur["n"] = cur.get("n", 0) + 1
    w = sentinel(k, a, "%d-%d" % (os.getpid(), cur["n"]), sc.get("wait", 8), sc.get("sync_scheme", "http")); rec["synced"] = w is not None
    rec["answers"] = []
    for r in sc.get("requests") or []:
        if isinstance(r, dict) and "sleep" in r: time.sleep(r["sleep"]); continue
        if isinstance(r, dict) and "apply" in r:
            for o in expand(dict(r["apply"], name=sc["name"]), a.cls):
                e = k.put(o); made.append(o)
            for n in r.get("delete", []): k.delete(meta("Ingress", n))
            k.delete(meta("Ingress", "zz-sync")); cur["n"] += 1; sentinel(k, a, "%d-%d" % (os.getpid(), cur["n"])); continue
        rq = parse_req(r, sc); ans = do_req(rq, a); rec["answers"].append({"request": r, "answer": ans})
    if a.events:
        s, ev = k.call("GET", "/api/v1/namespaces/%s/events" % NS)
        es = sorted({(e["reason"], norm(e.get("message", ""))) for e in ev.get("items", []) if e["reason"] not in ("Sync",) and e["involvedObject"]["kind"] == "Ingress" and e["involvedObject"]["name"] != "zz-sync"})
        if es: rec["events"] = [list(x) for x in es]
        k.call("DELETE", "/api/v1/namespaces/%s/events" % NS)
    made.append(meta("Ingress", "zz-sync"))
    for o in [x for x in reversed(made) if x["kind"] != "Namespace"]: k.delete(o)
    return rec

def load(path):
    for f in sorted(glob.glob(os.path.join(path, "*.y*ml")) + glob.glob(os.path.join(path, "*.json"))):
        d = yaml.safe_load(open(f))
        for sc in d if isinstance(d, list) else [d]: yield os.path.splitext(os.path.basename(f))[0], sc

def record(a):
    start_backends(); k = Kube(a.kubeconfig); cur = {}
    k.put({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NS}})
    k.put({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "t2"}})
    for n, (port, _, addrs) in BACKENDS.items():
        for o in service(n, port, addrs): k.put(o)
    for o in service("a", 9001, [IP], "t2"): k.put(o)
    for o in (k.call("GET", "/apis/networking.k8s.io/v1/ingresses")[1].get("items") or []):
        k.delete(dict(o, kind="Ingress"))      # a clean slate: what a broken earlier run left
    k.put({"apiVersion": "networking.k8s.io/v1", "kind": "IngressClass", "metadata": {"name": a.cls}, "spec": {"controller": a.controller_class}})
    os.makedirs(a.out, exist_ok=True); out = collections.defaultdict(dict); names = set(); n = 0
    for area, sc in load(a.scenarios):
        if sc["name"] in names: sys.exit("two scenarios named " + sc["name"])
        names.add(sc["name"])
        if a.only and not re.search(a.only, area + "/" + sc["name"]): continue
        t = time.time(); r = run(sc, k, a, cur); n += 1
        out[area][sc["name"]] = r
        if not a.quiet:
            print("%-44s %s %4.1fs  %s" % (area + "/" + sc["name"], "ok " if r["synced"] else "NOT SYNCED", time.time() - t,
              " ".join(str(x["answer"].get("status") or x["answer"].get("histogram") or x["answer"].get("error")) for x in r["answers"])), flush=True)
        f = os.path.join(a.out, area + ".json"); old = {}
        if os.path.exists(f): old = json.load(open(f))
        old.update(out[area]); json.dump(old, open(f, "w"), indent=1, sort_keys=True)
    if cur.get("cm") != BASE_CM: k.put(meta("ConfigMap", a.configmap.split("/")[1], namespace=a.configmap.split("/")[0], data=BASE_CM))
    print(n, "scenarios recorded in", a.out)

IGN_RESP = {"date", "server", "connection", "keep-alive", "transfer-encoding", "x-request-id"}
IGN_HIT = {"connection", "x-request-id"}
def anon(n): return re.sub(r"@[0-9.]+", "", n)
def hist(h, tol):
    """which of several equal peers answered is chance: only how the counts are spread is compared"""
    o = collections.defaultdict(list)
    for k, v in h.items(): o[anon(k)].append(v)
    return {k: sum(v) if tol else sorted(v) if len(v) > 1 or "@" in "".join(h) else v[0] for k, v in o.items()}
def reduce_(ans, a, tol):
    if "histogram" in ans:
        o = {"histogram": hist(ans["histogram"], tol)}
        if "first" in ans: o["first"] = reduce_(ans["first"], a, tol)
        if not tol:
            for x in ("setcookies", "same_peer"):
                if x in ans: o[x] = ans[x]
        return o
    o = {x: ans[x] for x in ("status", "tunnel", "by") if x in ans}
    if "error" in ans: o["error"] = ans["error"].split(":")[0]
    if "tls" in ans: o["tls"] = {"cn": ans["tls"]["cn"]}
    ign = set(IGN_RESP)
    if ans.get("by") == "proxy" and not a.bodies: ign |= {"content-type", "content-length"}
    o["headers"] = [[h[0], anon(h[1]) if h[0] == "x-echo" else h[1]] for h in ans.get("headers", []) if h[0] not in ign]
    if ans.get("by") == "backend" or a.bodies: o["body"] = ans.get("body")
    o["hits"] = [dict({k: anon(v) if k == "backend" else v for k, v in h.items() if k != "headers"}, headers=[x for x in h["headers"] if x[0] not in IGN_HIT]) for h in sorted(ans.get("hits", []), key=lambda h: (anon(h["backend"]), h["line"]))]
    if getattr(a, "essential", False): o = essential(o)
    return o

KEEP = {"location", "www-authenticate", "set-cookie", "content-encoding", "x-echo", "allow", "retry-after"}
def essential(o):
    """what a user would notice at once: status, who answered, where to, cookies by name, CORS; which backend got which request line"""
    cut = lambda k, v: v.split("=")[0] if k == "set-cookie" else v.rstrip("/") if k == "location" else v
    o = {k: v for k, v in o.items() if k not in ("tls", "body", "by")}
    o["headers"] = [[k, cut(k, v)] for k, v in o.get("headers", []) if k in KEEP or k.startswith("access-control-")]
    o["hits"] = [{k: h[k] for k in ("backend", "line") if k in h} for h in o.get("hits", [])]
    return o

def flat(x, p=""):
    if isinstance(x, dict):
        for k in sorted(x): yield from flat(x[k], p + "." + str(k))
    elif isinstance(x, list) and x and isinstance(x[0], (dict,)):
        yield p + ".n", len(x)
        for i, v in enumerate(x): yield from flat(v, "%s[%d]" % (p, i))
    elif isinstance(x, list) and x and all(isinstance(v, list) and len(v) == 2 for v in x):
        d = collections.defaultdict(list)
        for k, v in x: d[k].append(v)
        for k in sorted(d): yield p + "." + k, " & ".join(d[k])
    else: yield p, x

def compare(a):
    same = diff = ok = total = 0; missing = []
    defs = {sc["name"]: sc for _, sc in load(a.scenarios)}
    for f in sorted(glob.glob(os.path.join(a.oracle, "*.json"))):
        A = json.load(open(f)); bf = os.path.join(a.other, os.path.basename(f)); B = json.load(open(bf)) if os.path.exists(bf) else {}
        for n in sorted(A):
            if a.only and not re.search(a.only, os.path.basename(f)[:-5] + "/" + n): continue
            if n not in B: missing.append(n); continue
            tol = defs.get(n, {}).get("tol", 0); lines = []
            if A[n]["synced"] != B[n]["synced"]: lines.append("  synced: oracle %s, other %s" % (A[n]["synced"], B[n]["synced"]))
            if a.admission and {k: v is True for k, v in A[n].get("admission", {}).items()} != {k: v is True for k, v in B[n].get("admission", {}).items()}:
                lines.append("  admission: oracle %s, other %s" % (A[n].get("admission"), B[n].get("admission")))
            for i, (x, y) in enumerate(zip(A[n]["answers"], B[n]["answers"])):
                xa, ya = reduce_(x["answer"], a, tol), reduce_(y["answer"], a, tol)
                if tol and "histogram" in xa and "histogram" in ya:
                    hx, hy = xa.pop("histogram"), ya.pop("histogram"); tot = sum(hx.values()); xa.pop("first", 0); ya.pop("first", 0)
                    if any(abs(hx.get(q, 0) - hy.get(q, 0)) > tol * tot for q in set(hx) | set(hy)): lines.append("  [%d] histogram: oracle %s, other %s" % (i, hx, hy))
                if getattr(a, "essential", False) and isinstance(xa, dict): [z.pop("setcookies", 0) for z in (xa, ya)]
                fx, fy = dict(flat(xa)), dict(flat(ya)); total += 1; ok += fx == fy
                for q in sorted(set(fx) | set(fy)):
                    if fx.get(q) != fy.get(q): lines.append("  [%d] %s%s: oracle %r, other %r" % (i, json.dumps(x["request"])[:90], q, fx.get(q), fy.get(q)))
            if lines and getattr(a, "differences", False):
                diff += 1; name = "%s/%s" % (os.path.basename(f)[:-5], n)
                if A[n]["synced"] != B[n]["synced"]: print("%s.synced: %r -> %r" % (name, A[n]["synced"], B[n]["synced"]))
                for i, (x, y) in enumerate(zip(A[n]["answers"], B[n]["answers"])):
                    fx, fy = dict(flat(reduce_(x["answer"], a, tol))), dict(flat(reduce_(y["answer"], a, tol)))
                    for q in sorted(set(fx) | set(fy)):
                        if (fx.get(q) or None) != (fy.get(q) or None): print("%s[%d]%s: %r -> %r" % (name, i, q, fx.get(q) or None, fy.get(q) or None))
            elif lines: diff += 1; print("%s/%s  %s" % (os.path.basename(f)[:-5], n, defs.get(n, {}).get("about", ""))); print("\n".join(lines))
            else: same += 1
    print("%d same, %d different, %d not recorded by the other; of %d answers %d same" % (same, diff, len(missing), total, ok) + (": " + " ".join(missing) if missing else ""))
    return 1 if diff or missing else 0

def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter); sp = ap.add_subparsers(dest="mode", required=True)
    r = sp.add_parser("record"); r.add_argument("--kubeconfig", required=True); r.add_argument("--out", default=os.path.join(HERE, "recorded"))
    r.add_argument("--http", default="10.88.0.1:80"); r.add_argument("--https", default="10.88.0.1:443"); r.add_argument("--class", dest="cls", default="nginx")
    r.add_argument("--controller-class", default=CONTROLLER[0], help="spec.controller of the IngressClass named by --class"); r.add_argument("--configmap", default="ingress-nginx/ingress-nginx-controller"); r.add_argument("--webhook", default=""); r.add_argument("--settle", type=float, default=0.25)
    r.add_argument("--events", action="store_true"); r.add_argument("--quiet", action="store_true")
    c = sp.add_parser("compare"); c.add_argument("oracle"); c.add_argument("other"); c.add_argument("--bodies", action="store_true"); c.add_argument("--admission", action="store_true"); c.add_argument("--essential", action="store_true", help="only what a user would notice at once: no headers but redirects, cookies' names, CORS; which backend got which request line")
    c.add_argument("--differences", action="store_true", help="one line for each field of each answer that differs: AREA/NAME[INDEX].FIELD: RECORDED -> OTHER")
    s = sp.add_parser("show"); s.add_argument("dir"); s.add_argument("name")
    for x in (r, c): x.add_argument("--scenarios", default=os.path.join(HERE, "scenarios")); x.add_argument("--only", default="")
    a = ap.parse_args()
    if a.mode == "record": CONTROLLER[0] = a.controller_class; record(a)
    elif a.mode == "compare": sys.exit(compare(a))
    else:
        for f in glob.glob(os.path.join(a.dir, "*.json")):
            d = json.load(open(f))
            if a.name in d:
                x = d[a.name]; print({k: v for k, v in x.items() if k != "answers"})
                for q in x["answers"]:
                    print(json.dumps(q["request"])); w = q["answer"]
                    if "first" in w: print("   ", w["histogram"], {k: w[k] for k in ("setcookies", "same_peer", "sequence") if k in w}); w = w["first"]
                    print("   ", w.get("status", w.get("error", w)), w.get("by"), w.get("headers"), repr(w.get("body", ""))[:200], w.get("tls", ""), w.get("tunnel", ""))
                    for h in w.get("hits", []): print("      ->", h["backend"], h["line"], h["headers"], h.get("body", ""), h.get("tls", ""))

main()
