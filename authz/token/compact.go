package token

import (
	"encoding/base64"
	"strconv"
	"strings"
	"unsafe"
)

// maxTokenBytes bounds what is parsed at all. Access tokens of a few hundred bytes are usual, 8 KiB
// is what servers and proxies commonly allow for a header line.
const maxTokenBytes = 8 << 10

// compact is a JWS in compact serialization (RFC 7515 §7.1), taken apart but not yet believed.
type compact struct {
	header    []byte // decoded
	payload   []byte // decoded
	signature []byte // decoded
	signed    []byte // the JWS signing input, as it was received (RFC 7515 §5.2)
}

// base64url is canonical: no padding, and no bits set that are not used, so that a token has
// exactly one spelling.
var base64url = base64.RawURLEncoding.Strict()

// parseCompact takes a token apart. It accepts three non-empty segments of canonical base64url and
// nothing else: no JSON serialization, no JWE (five segments), no detached payload.
func parseCompact(s string) (compact, error) {
	// The decoder of encoding/base64 skips line breaks; RFC 7515 §2 has no line breaks.
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
		return refuse(Malformed, "not a JWT: no dots in it. An opaque token is issued when none, "+
			"or another, audience is asked for: ask for a token with this API's audience")
	case 2:
		return refuse(Malformed, "2 segments, expected 3 (RFC 7515 §7.1): the signature is "+
			"missing. Was the token cut short?")
	case 5:
		return refuse(Malformed, "five segments: an encrypted token (JWE), which only its issuer "+
			"can read. Have the issuer sign access tokens for this API, not encrypt them")
	}
	// Not formatted: rubbish costs who sends it nothing.
	return &Error{Code: Malformed,
		Detail: strconv.Itoa(n) + " segments, expected 3 (RFC 7515 §7.1)"}
}

// bytesOf reads a string where it lies, for those who only read: a copy would be the dearest part
// of a hit, and a good part of what is allocated for a token that is new.
func bytesOf(s string) []byte { return unsafe.Slice(unsafe.StringData(s), len(s)) }

// stringOf is a string where the bytes lie, which nobody changes any more: 8 KiB hold 2,000 scopes,
// each of which would be an allocation.
func stringOf(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// segments decodes one segment after another, until one is not what it should be.
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
