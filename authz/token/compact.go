package token

import (
	"encoding/base64"
	"strings"
)

// maxTokenBytes bounds what is parsed at all. Access tokens of a few hundred bytes are usual, 8 KiB is what
// servers and proxies commonly allow for a header line.
const maxTokenBytes = 8 << 10

// compact is a JWS in compact serialization (RFC 7515 §7.1), taken apart but not yet believed.
type compact struct {
	header    []byte // decoded
	payload   []byte // decoded
	signature []byte // decoded
	signed    []byte // the JWS signing input, as it was received (RFC 7515 §5.2)
}

// base64url is canonical: no padding, and no bits set that are not used, so that a token has exactly one spelling.
var base64url = base64.RawURLEncoding.Strict()

// parseCompact takes a token apart. It accepts three non-empty segments of canonical base64url and nothing else:
// no JSON serialization, no JWE (five segments), no detached payload.
func parseCompact(s string) (compact, error) {
	// The decoder of encoding/base64 skips line breaks; RFC 7515 §2 has no line breaks.
	if strings.ContainsAny(s, "\r\n") {
		return compact{}, refuse(Malformed, "a line break inside the token")
	}
	switch dots := strings.Count(s, "."); dots {
	case 2:
	case 0:
		return compact{}, refuse(Malformed, "not a JWT: no dots in it. An opaque token is issued when none, or another, audience is asked for: ask for a token with this API's audience")
	case 4:
		return compact{}, refuse(Malformed, "five segments: an encrypted token (JWE), which only its issuer can read. Have the issuer sign access tokens for this API, not encrypt them")
	default:
		return compact{}, refuse(Malformed, "%d segments, expected 3 (RFC 7515 §7.1)", dots+1)
	}
	raw := []byte(s)
	first, last := strings.IndexByte(s, '.'), strings.LastIndexByte(s, '.')
	d := segments{decoded: make([]byte, 0, base64url.DecodedLen(len(raw)))}
	c := compact{
		header:    d.next("header", raw[:first]),
		payload:   d.next("payload", raw[first+1:last]),
		signature: d.next("signature", raw[last+1:]),
		signed:    raw[:last],
	}
	return c, d.err
}

// segments decodes one segment after another, until one is not what it should be.
type segments struct {
	decoded []byte
	err     error
}

func (d *segments) next(name string, encoded []byte) []byte {
	if d.err != nil {
		return nil
	}
	if len(encoded) == 0 {
		d.err = refuse(Malformed, "the %s segment is empty", name)
		return nil
	}
	start := len(d.decoded)
	decoded, err := base64url.AppendDecode(d.decoded, encoded)
	if err != nil {
		d.err = refuse(Malformed, "the %s segment is not canonical base64url (RFC 7515 §2)", name)
		return nil
	}
	d.decoded = decoded
	return decoded[start:len(decoded):len(decoded)]
}
