#!/usr/bin/env python3
"""Makes the certificates of this folder: a test CA, and what goes wrong with certificates.  Nothing in here protects anything.

usage: tests/vectors/tls/make.py (writes beside itself; needs `cryptography`)
"""
import datetime
import ipaddress
import os

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

HERE = os.path.dirname(os.path.abspath(__file__))
BEGIN = datetime.datetime(2020, 1, 1)
END = datetime.datetime(2120, 1, 1)
PAST = datetime.datetime(2021, 1, 1)


def usage(**on):
    names = ("digital_signature content_commitment key_encipherment data_encipherment key_agreement key_cert_sign crl_sign "
             "encipher_only decipher_only").split()
    return x509.KeyUsage(**{n: on.get(n, False) for n in names})


def make(base, issuer, extensions, end=END):
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, base)])
    b = (x509.CertificateBuilder().subject_name(name).issuer_name(issuer[1] if issuer else name).public_key(key.public_key())
         .serial_number(x509.random_serial_number()).not_valid_before(BEGIN).not_valid_after(end))
    for ext, critical in extensions:
        b = b.add_extension(ext, critical)
    crt = b.sign(issuer[0] if issuer else key, hashes.SHA256())
    with open(os.path.join(HERE, base + ".crt"), "wb") as f:
        f.write(crt.public_bytes(serialization.Encoding.PEM))
    with open(os.path.join(HERE, base + ".key"), "wb") as f:
        f.write(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    return key, name


def ca(base):
    return make(base, None, [(x509.BasicConstraints(True, 0), True), (usage(key_cert_sign=True, crl_sign=True), True)])


def leaf(base, issuer, names, end=END):
    make(base, issuer, [(x509.BasicConstraints(False, None), True), (usage(digital_signature=True), True),
                        (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), False),
                        (x509.SubjectAlternativeName(names), False)], end)


def main():
    uri = x509.UniformResourceIdentifier
    here = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    ours, foreign = ca("ca"), ca("foreign-ca")
    leaf("server", ours, here + [uri("spiffe://test/distributor/centre")])
    leaf("named-server", ours, [x509.DNSName("centre.example"), uri("spiffe://test/distributor/centre")])
    leaf("foreign-server", foreign, here + [uri("spiffe://test/distributor/centre")])
    leaf("device", ours, [uri("spiffe://test/device/box1")])
    leaf("operator", ours, [uri("spiffe://test/operator/ann")])
    leaf("nobody", ours, [x509.DNSName("box9.example")])
    leaf("foreign-device", foreign, [uri("spiffe://test/device/box1")])
    leaf("expired-device", ours, [uri("spiffe://test/device/box1")], PAST)


main()
