//! The forms of text in the API: one home for the bounds, the CEL rule and the words a person reads.
//!
//! A form is a CEL rule, not a `pattern`, because an API server prints a pattern's regular expression but a rule's
//! message. Every message reads `what is wrong; what to do`: `load` splits it there.

use schemars::{Schema, SchemaGenerator, json_schema};

/// A kind of text: `rule` judges it, `message` says what is wrong and what to do.
struct Form {
    rule: &'static str,
    message: &'static str,
    max: u32,
    example: &'static str,
}

impl Form {
    fn schema(&self) -> Schema {
        json_schema!({
            "type": "string",
            "minLength": 1,
            "maxLength": self.max,
            "example": self.example,
            "x-kubernetes-validations": [{"rule": self.rule, "message": self.message}],
        })
    }

    fn list(&self, max_items: u32) -> Schema {
        json_schema!({"type": "array", "maxItems": max_items, "items": self.schema()})
    }
}

/// One DNS label, RFC 1123 section 2.1.
const NAME: Form = Form {
    rule: "self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')",
    message: "is not a DNS label; use only a-z, 0-9 and `-`, beginning and ending with a letter or digit (names that begin with `_` are reserved)",
    max: 63,
    example: "notices",
};

/// A Service's name, RFC 1035: it begins with a letter.
const SERVICE_NAME: Form = Form {
    rule: "self.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
    message: "is not a Service name; use only a-z, 0-9 and `-`, beginning with a letter and not ending with `-`",
    max: 63,
    example: "europol-siena",
};

/// The name of an object beside this one, RFC 1123 subdomain.
const OBJECT_NAME: Form = Form {
    rule: "self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$')",
    message: "is not the name of a Kubernetes object; use the bare name of an object in the same namespace, without a namespace or path in front",
    max: 253,
    example: "default",
};

/// Held to what `securelink_id::TrustDomain` takes.
const TRUST_DOMAIN: Form = Form {
    rule: "self.matches('^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?([.][a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)*$')",
    message: "is not a trust domain; write the organization's bare DNS name in lower case, only a-z, 0-9, `-` and `.`, without `spiffe://`, port or path",
    max: 255,
    example: "europol.example",
};

/// Held to what `securelink_id::TrustDomainPattern` takes.
const TRUST_DOMAIN_PATTERN: Form = Form {
    rule: "self.matches('^([*][.])?[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?([.][a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)*$')",
    message: "is not a trust domain or `*.` and a trust domain; write europol.example for exactly that one or *.example for everything below it",
    max: 257,
    example: "*.example",
};

/// Held to what `securelink_id::Fingerprint` takes.
const FINGERPRINT: Form = Form {
    rule: "self.matches('^sha256:[0-9a-f]{64}$')",
    message: "is not a fingerprint; write `sha256:` and 64 digits 0-9 a-f in lower case: copy the whole line the other side's `securelink fingerprint` prints",
    max: 71,
    example: "sha256:9f2c3c4b1d6a58e7f00112233445566778899aabbccddeeff001122334455667",
};

const DIGEST: Form = Form {
    rule: "self.matches('^sha256:[0-9a-f]{64}$')",
    message: "is not a digest; write `sha256:` and 64 digits 0-9 a-f in lower case: copy the line `securelink digest FILE` prints for the signed text",
    max: 71,
    example: "sha256:77ab3c4b1d6a58e7f00112233445566778899aabbccddeeff001122334455667",
};

/// A DNS name or an address. Link-local addresses (cloud metadata lives there) are never a peer or a target.
const HOST: Form = Form {
    rule: "isIP(self) ? !ip(self).isLinkLocalUnicast() : self.matches('^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?([.][a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)*$')",
    message: "is not a host that can be dialed; write a DNS name in lower case, or an IPv4 or IPv6 address that is not link-local, without scheme, brackets, port or path",
    max: 253,
    example: "link.europol.example",
};

const CIDR: Form = Form {
    rule: "isCIDR(self)",
    message: "is not a network; write an address and a prefix length, such as 192.0.2.0/24 or 2001:db8::/32",
    max: 43,
    example: "192.0.2.0/24",
};

/// User information would be a secret in a public file (contracts 8).
const PROXY: Form = Form {
    rule: "self.matches('^http://([a-z0-9]([-a-z0-9.]*[a-z0-9])?|\\\\[[0-9a-f:.]+\\\\])(:[0-9]{1,5})?/?$')",
    message: "is not the URL of a proxy; write http://HOST:PORT in lower case, without user name, password, path or https",
    max: 280,
    example: "http://proxy.corp.example:3128",
};

/// Text for people. Control and direction characters would forge lines in logs and terminals.
const PLAIN: Form = Form {
    rule: "self.matches('^[^\\\\p{Cc}\\\\p{Cf}]+$')",
    message: "holds a line break, a control character or an invisible one; write one line of plain text",
    max: 256,
    example: "MoU-2011-10-11",
};

const EMAIL: Form = Form {
    rule: "self.matches('^[A-Za-z0-9.!#$%&*+/=?^_{|}~-]+@[A-Za-z0-9.-]+$')",
    message: "is not a mail address; write one such as noc@interpol.example, without a display name",
    max: 254,
    example: "noc@interpol.example",
};

macro_rules! schemas {
    ($($function:ident = $schema:expr;)*) => {
        $(pub(crate) fn $function(_: &mut SchemaGenerator) -> Schema { $schema })*
    };
}

schemas! {
    name = NAME.schema();
    service_name = SERVICE_NAME.schema();
    object_name = OBJECT_NAME.schema();
    trust_domain = TRUST_DOMAIN.schema();
    trust_domain_patterns = TRUST_DOMAIN_PATTERN.list(64);
    fingerprint = FINGERPRINT.schema();
    fingerprints = FINGERPRINT.list(4);
    digest = DIGEST.schema();
    host = HOST.schema();
    cidrs = CIDR.list(64);
    proxy = PROXY.schema();
    plain = PLAIN.schema();
    email = EMAIL.schema();
    word = bounded(128);
    sentence = bounded(1024);
    answer = bounded(4096);
    instant = json_schema!({
        "type": "string", "format": "date-time", "maxLength": 35, "example": "2026-01-01T00:00:00Z",
    });
}

/// Text the operator writes: a bound and nothing else.
fn bounded(max: u32) -> Schema {
    json_schema!({"type": "string", "maxLength": max})
}
