#!/usr/bin/env bash
# Copies the CRDs into the chart and prints deploy/manifests/penstock.yaml from it. With --check nothing is written: it fails if
# something is out of date.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
check=
[ "${1:-}" = --check ] && check=1

helm=${HELM:-$(command -v helm || true)}
[ -n "$helm" ] || helm=$("$root/tests/cluster/build")/helm

new=$(mktemp -d)
trap 'rm -rf "$new"' EXIT
cp -r "$root/charts/penstock" "$new/penstock"
rm -rf "$new/penstock/files/crds"
mkdir -p "$new/penstock/files/crds"
cp "$root"/crds/*.yaml "$new/penstock/files/crds/"

"$helm" lint --strict --quiet "$new/penstock"
for values in "$new"/penstock/ci/*.yaml; do
  "$helm" lint --strict --quiet "$new/penstock" --values "$values"
done

{
  echo "# Penstock in the namespace penstock. Printed from charts/penstock with its defaults by deploy/render.sh."
  printf 'apiVersion: v1\nkind: Namespace\nmetadata:\n  name: penstock\n'
  # What only means something to Helm is left out: who made it, and what its uninstall keeps.
  "$helm" template penstock "$new/penstock" --namespace penstock |
    sed -e '/^  annotations:$/{N;/\n *helm\.sh\/resource-policy: keep$/d}' -e '/^ *helm\.sh\/chart: /d' -e '/^ *app\.kubernetes\.io\/managed-by: Helm$/d' -e '/^# Source: /d'
} >"$new/penstock.yaml"

if [ -n "$check" ]; then
  diff -ru "$root/charts/penstock/files/crds" "$new/penstock/files/crds" && diff -u "$root/deploy/manifests/penstock.yaml" "$new/penstock.yaml" || {
    echo "deploy/render.sh --check: the chart's CRDs or the manifests are out of date; run deploy/render.sh" >&2
    exit 1
  }
else
  rm -rf "$root/charts/penstock/files/crds"
  cp -r "$new/penstock/files/crds" "$root/charts/penstock/files/crds"
  cp "$new/penstock.yaml" "$root/deploy/manifests/penstock.yaml"
fi
