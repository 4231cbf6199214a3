package token

import (
	"encoding/base64"
	"strconv"
	"strings"
	"unsafe"
)

// maxTokenBytes bounds what is parsed. Most access tokens have some hundred bytes; servers and
// proxies commonly limit a header line to 8 KiB.
const maxTokenBytes = 8 << 10

// compact is a parsed, unverified JWS in compact serialization (RFC 7515 §7.1).
type compact struct {
	header    []byte // decoded
	payload   []byte // decoded
	signature []byte // decoded
	signed    []byte // the JWS signing input, as it was received (RFC 7515 §5.2)
}

// base64url rejects padding and unused bits that are set, so that a token has exactly one encoding.
var base64url = base64.RawURLEncoding.Strict()

// parseCompact parses a token. It accepts three non-empty segments of canonical base64url only: no
// JSON serialization, no JWE (five segments), no detached payload.
func parseCompact(s string) (compact, error) {
	// encoding/base64 ignores line breaks, which RFC 7515 §2 does not allow.
	if strings.IndexByte(s, '\n') >= 0 || strings.IndexByte(s, '\r') >= 0 {
		return compact{}, refuse(Malformed, "a line break inside the token")
	}
	header, rest, _ := strings.Cut(s, ".")
	payload, signature, found := strings.Cut(rest, ".")
	if !found || strings.IndexByte(signature, '.') >= 0 {
		return compact{}, notThreeSegments(strings.Count(s, ".") + 1)
	}
	d := segments{decoded: make([]byte, 0, base64url.DecodedLen(len(s)))}
	c := compact{
		header:    d.next("header", header),
		payload:   d.next("payload", payload),
		signature: d.next("signature", signature),
		signed:    bytesOf(s[:len(header)+len(".")+len(payload)]),
	}
	return c, d.err
}

func notThreeSegments(n int) error {
	switch n {
	case 1:
		return refuse(Malformed, "not a JWT: it has no dots. Some issuers return an opaque token "+
			"unless the client requests this API's audience")
	case 2:
		return refuse(Malformed, "2 segments, expected 3 (RFC 7515 §7.1): the signature is "+
			"missing. Was the token truncated?")
	case 5:
		return refuse(Malformed, "5 segments: an encrypted token (JWE), which only its issuer "+
			"can read. Configure the issuer to sign access tokens for this API, not encrypt them")
	}
	// strconv rather than fmt keeps the refusal of malformed input cheap.
	return &Error{Code: Malformed,
		Detail: strconv.Itoa(n) + " segments, expected 3 (RFC 7515 §7.1)"}
}

// bytesOf returns the bytes of a string without a copy, which would dominate the cost of a cache
// hit. The caller must not change them.
func bytesOf(s string) []byte { return unsafe.Slice(unsafe.StringData(s), len(s)) }

// stringOf returns bytes as a string without a copy: a token may have 2,000 scopes, each of which
// would be an allocation. The caller must not change the bytes afterwards.
func stringOf(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// segments decodes one segment after another into one buffer, up to the first error.
type segments struct {
	decoded []byte
	err     error
}

func (d *segments) next(name, encoded string) []byte {
	if d.err != nil {
		return nil
	}
	if encoded == "" {
		d.err = refuse(Malformed, "the %s segment is empty", name)
		return nil
	}
	start := len(d.decoded)
	decoded, err := base64url.AppendDecode(d.decoded, []byte(encoded))
	if err != nil {
		d.err = refuse(Malformed, "the %s segment is not canonical base64url (RFC 7515 §2)", name)
		return nil
	}
	d.decoded = decoded
	return decoded[start:len(decoded):len(decoded)]
}
