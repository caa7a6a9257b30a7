"""Certificates of one run, made by openssl, and the settings with them."""

import subprocess

SETTINGS = """
[req]
distinguished_name = name
prompt = no
[name]
CN = bench
[authority]
basicConstraints = critical, CA:TRUE
[node]
subjectAltName = IP:127.0.0.1
"""


class Certificates:
    """An authority, and the certificate of every node."""

    def __init__(self, folder):
        self.folder = folder
        (folder / "openssl.cnf").write_text(SETTINGS)
        self.authority = self._make("authority")
        self.node = self._make("node", "-CA", self.authority, "-CAkey", folder / "authority.key")

    def _make(self, name, *signed_by):
        """Makes a certificate with a P-256 key. Returns its file."""
        certificate, key = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        words = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-keyout", key, "-out", certificate]
        command = ["openssl", "req", "-x509", "-config", self.folder / "openssl.cnf", "-extensions", name, *words, *signed_by]
        subprocess.run(command, check=True, capture_output=True)
        return certificate

    def of_node(self, *more):
        """Returns the settings of a node, in the format of nats-server."""
        lines = [f'cert_file: "{self.node}"', f'key_file: "{self.folder / "node.key"}"', *more]
        return "tls {\n" + "\n".join(lines) + "\n}\n"

    def of_sidecar(self, *more):
        """Returns the settings of a sidecar that uses TLS with every node."""
        lines = ["[tls.node]", 'mode = "required"', f'ca_file = "{self.authority}"', *more]
        return "\n".join(lines) + "\n"

    def of_haproxy(self):
        return f"ssl verify required ca-file {self.authority}"

    def of_load(self):
        return ["--tls-ca", self.authority]
