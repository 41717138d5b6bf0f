"""Makes the certificates of one deployment: pki.py FLAVOUR DIRECTORY

Into DIRECTORY go, all PEM, named for where Octavia's configuration has them:

    server.pem           the agent's certificate and key   [amphora_agent] agent_server_cert
    client_ca.pem        whom the agent lets in            [amphora_agent] agent_server_ca
    client.pem           the controller's and its key      [haproxy_amphora] client_cert
    server_ca.pem        by what it knows the agent        [haproxy_amphora] server_ca
    ca_certificate.pem   by what it makes server.pem       [certificates] ca_certificate
    ca_private_key.pem                                     [certificates] ca_private_key
    refused/             clients that must not get in:
        other_ca.pem     signed by another CA
        expired.pem
        server_auth.pem  whose extended key usage is serverAuth alone

The server's certificate is always made by Octavia's LocalCertGenerator, as it is in all
deployments. The flavours differ in what operators make beforehand, see FLAVOURS.
"""

import argparse
import pathlib
import subprocess

from octavia.certificates.generator import local
from octavia.common import config as _registers_options  # noqa: F401

import models

DAY = 24 * 3600

# Sections as in the openssl.cnf of Octavia's certificate guide, and fewer as operators forget them.
OPENSSL_CNF = """
[req]
distinguished_name = name
prompt = no
[name]
[ca]
default_ca = ca_default
[ca_default]
new_certs_dir = .
database = index.txt
rand_serial = yes
default_md = sha256
default_days = 7300
policy = policy
unique_subject = no
email_in_dn = no
[policy]
commonName = supplied
[root]
basicConstraints = critical, CA:true
keyUsage = critical, digitalSignature, cRLSign, keyCertSign
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid:always, issuer
[intermediate]
basicConstraints = critical, CA:true, pathlen:0
keyUsage = critical, digitalSignature, cRLSign, keyCertSign
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid:always, issuer
[client]
basicConstraints = CA:FALSE
nsCertType = client, email
nsComment = "OpenSSL Generated Client Certificate"
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid, issuer
keyUsage = critical, nonRepudiation, digitalSignature, keyEncipherment
extendedKeyUsage = clientAuth, emailProtection
[no_eku]
basicConstraints = CA:FALSE
[server_auth]
basicConstraints = CA:FALSE
extendedKeyUsage = serverAuth
"""


class Signer:
    """Keys and certificates in a folder of their own, made by the openssl command."""

    def __init__(self, folder):
        self.folder = folder
        folder.mkdir(parents=True)
        (folder / 'openssl.cnf').write_text(OPENSSL_CNF)
        (folder / 'index.txt').touch()

    def root(self, name):
        """A self-signed CA."""
        self._openssl('req', '-x509', *self._new_key(name), '-days', '7300', '-extensions', 'root',
                      '-out', f'{name}.crt')
        return name

    def root_v1(self, name):
        """A self-signed CA without extensions: an X.509 v1 certificate."""
        self._request(name)
        self._openssl('x509', '-req', '-in', f'{name}.csr', '-signkey', f'{name}.key',
                      '-days', '7300', '-out', f'{name}.crt')
        return name

    def leaf_v1(self, name, ca):
        """A certificate without extensions, as `openssl x509 -req` makes it unasked."""
        self._request(name)
        self._openssl('x509', '-req', '-in', f'{name}.csr', '-CA', f'{ca}.crt',
                      '-CAkey', f'{ca}.key', '-CAcreateserial', '-days', '7300',
                      '-out', f'{name}.crt')
        return name

    def signed(self, name, ca, section, *options):
        """A certificate with the extensions of `section`."""
        self._request(name)
        self._openssl('ca', '-batch', '-notext', '-cert', f'{ca}.crt', '-keyfile', f'{ca}.key',
                      '-extensions', section, *options, '-in', f'{name}.csr', '-out', f'{name}.crt')
        return name

    def issue(self, name, ca):
        return issue(name, self.certificate(ca), self.key(ca))

    def certificate(self, name):
        return (self.folder / f'{name}.crt').read_bytes()

    def key(self, name):
        return (self.folder / f'{name}.key').read_bytes()

    def pair(self, name, *chain):
        """The certificate, those between it and the root, and its key."""
        certificates = [self.certificate(each) for each in (name, *chain)]
        return b''.join([*certificates, self.key(name)])

    def _request(self, name):
        self._openssl('req', *self._new_key(name), '-out', f'{name}.csr')

    def _new_key(self, name):
        return ['-new', '-newkey', 'rsa:2048', '-nodes', '-keyout', f'{name}.key',
                '-subj', f'/CN={name}']

    def _openssl(self, command, *options):
        config = () if command == 'x509' else ('-config', 'openssl.cnf')
        subprocess.run(['openssl', command, *config, *options], cwd=self.folder, check=True,
                       capture_output=True, text=True)


class Deployment:
    """The CAs that a flavour made; names are those of the signer's files."""

    def __init__(self, signer, server_ca, client_ca, client, *, server_chain=(), client_chain=(),
                 trusted=None, joined=False):
        self.signer = signer
        self.server_ca = server_ca
        self.server_chain = server_chain
        self.client_ca = client_ca
        self.client = client
        self.client_chain = client_chain
        self.trusted = trusted or [client_ca]
        self.joined = joined

    def write(self, folder):
        signer = self.signer
        files = {
            'ca_certificate.pem': signer.certificate(self.server_ca),
            'ca_private_key.pem': signer.key(self.server_ca),
            'server_ca.pem': b''.join(
                signer.certificate(each) for each in (self.server_ca, *self.server_chain)),
            'server.pem': self.server_pem(),
            'client.pem': self.client,
            'client_ca.pem': b''.join(signer.certificate(each) for each in self.trusted),
            'refused/other_ca.pem': signer.pair(
                signer.signed('other', signer.root('other-ca'), 'client')),
            'refused/expired.pem': signer.pair(
                signer.signed('expired', self.client_ca, 'client', '-startdate', '20200101000000Z',
                              '-enddate', '20200102000000Z'), *self.client_chain),
            'refused/server_auth.pem': signer.pair(
                signer.signed('server-auth', self.client_ca, 'server_auth'), *self.client_chain),
        }
        (folder / 'refused').mkdir()
        for name, content in files.items():
            (folder / name).write_bytes(content)

    def server_pem(self):
        issued = self.signer.issue(models.AMPHORA, self.server_ca)
        if self.joined:
            return issued.certificate.rstrip() + issued.private_key
        return pem(issued)


def issue(name, ca_certificate, ca_key):
    """Octavia's certificate for `name`, and its PKCS#1 key."""
    return local.LocalCertGenerator.generate_cert_key_pair(
        name, 30 * DAY, ca_cert=ca_certificate, ca_key=ca_key)


def pem(issued):
    """server.pem as the controller makes and rotates it."""
    return issued.certificate + issued.private_key


def generated(signer):
    """The client's certificate too is by LocalCertGenerator (serverAuth and clientAuth)."""
    client_ca = signer.root('client-ca')
    client = pem(signer.issue('controller', client_ca))
    return Deployment(signer, signer.root('server-ca'), client_ca, client)


def guide(signer):
    """Two CAs, each with an intermediate; the client sends its own along."""
    server_ca = signer.signed('server-ca', signer.root('server-root'), 'intermediate')
    client_ca = signer.signed('client-ca', signer.root('client-root'), 'intermediate')
    client = signer.pair(signer.signed('client', client_ca, 'client'), client_ca)
    return Deployment(signer, server_ca, client_ca, client, server_chain=['server-root'],
                      client_chain=[client_ca], trusted=['client-root'])


def v1(signer):
    """`openssl x509 -req` without extensions, for roots and client."""
    client_ca = signer.root_v1('client-ca')
    client = signer.pair(signer.leaf_v1('client', client_ca))
    return Deployment(signer, signer.root_v1('server-ca'), client_ca, client)


def no_eku(signer):
    """The client's certificate does not say what it is for."""
    client_ca = signer.root('client-ca')
    client = signer.pair(signer.signed('client', client_ca, 'no_eku'))
    return Deployment(signer, signer.root('server-ca'), client_ca, client)


def bundle(signer):
    """The agent trusts a file of several; the client sends its own certificate alone."""
    client_ca = signer.signed('client-ca', signer.root('client-root'), 'intermediate')
    client = signer.pair(signer.signed('client', client_ca, 'client'))
    trusted = [signer.root('last-years-root'), 'client-root', client_ca]
    return Deployment(signer, signer.root('server-ca'), client_ca, client, trusted=trusted)


def joined(signer):
    """As `generated`, but nothing stands between the server's certificate and its key.

    OpenSSL refuses that, so the stock agent cannot be started with it.
    """
    client_ca = signer.root('client-ca')
    client = pem(signer.issue('controller', client_ca))
    return Deployment(signer, signer.root('server-ca'), client_ca, client, joined=True)


FLAVOURS = {make.__name__: make for make in (generated, guide, v1, no_eku, bundle, joined)}


def main():
    parser = argparse.ArgumentParser(description='Makes the certificates of one deployment.')
    parser.add_argument('flavour', choices=FLAVOURS)
    parser.add_argument('directory', type=pathlib.Path)
    options = parser.parse_args()
    signer = Signer(options.directory / 'made')
    FLAVOURS[options.flavour](signer).write(options.directory)


if __name__ == '__main__':
    main()
