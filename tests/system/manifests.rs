//! Objects that scenes apply, and the controller that serves them.
#![allow(dead_code, reason = "each test binary uses its part")]

use crate::{
    cluster::Cluster,
    support::{Backend, Penstock},
};

pub const CLASSES: &str = "
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: {name: penstock}
spec: {controller: penstock.dev/ingress-controller}
---
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: {name: nginx}
spec: {controller: k8s.io/ingress-nginx}
";

/// A Service without selector and the one slice that fills it.
pub fn service(name: &str, backend: &Backend) -> String {
    let (address, port) = (backend.address.ip(), backend.address.port());
    format!(
        "
apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec: {{ports: [{{name: http, port: 80, targetPort: {port}}}]}}
---
{}",
        slice(name, &[&address.to_string()], port)
    )
}

pub fn slice(name: &str, addresses: &[&str], port: u16) -> String {
    let endpoints: Vec<_> =
        addresses.iter().map(|address| format!("{{addresses: [{address}], conditions: {{ready: true}}}}")).collect();
    format!(
        "
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: {name}-1, labels: {{kubernetes.io/service-name: {name}}}}}
addressType: IPv4
ports: [{{name: http, port: {port}, protocol: TCP}}]
endpoints: [{}]
",
        endpoints.join(", ")
    )
}

pub fn ingress(name: &str, host: &str, path: &str, service: &str) -> String {
    format!(
        "
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {{name: {name}}}
spec:
  ingressClassName: penstock
  tls: [{{hosts: [{host}], secretName: {name}-tls}}]
  rules: [{{host: {host}, http: {{paths: [{{path: {path}, pathType: Prefix, backend: {{service: {{name: {service}, port: {{number: 80}}}}}}}}]}}}}]
"
    )
}

/// A Secret with a fresh certificate for a name; gives the certificate too.
pub fn tls_secret(name: &str, host: &str) -> (String, Vec<u8>) {
    let made = rcgen::generate_simple_self_signed(vec![host.to_owned()]).unwrap();
    let indent = |pem: String| pem.replace('\n', "\n    ");
    let secret = format!(
        "
apiVersion: v1
kind: Secret
metadata: {{name: {name}}}
type: kubernetes.io/tls
stringData:
  tls.crt: |
    {}
  tls.key: |
    {}
",
        indent(made.cert.pem()),
        indent(made.signing_key.serialize_pem())
    );
    (secret, made.cert.der().to_vec())
}

/// A controller as administrator of the cluster.
pub fn controller(cluster: &Cluster, more: &[&str]) -> Penstock {
    let kubeconfig = cluster.kubeconfig();
    let mut arguments = vec!["controller", "--kubeconfig", kubeconfig.to_str().unwrap(), "--publish-status-address", "192.0.2.7"];
    arguments.extend(more);
    Penstock::start(&arguments)
}
