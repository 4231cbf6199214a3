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
	if len(s) > maxTokenBytes {
		return compact{}, refuse(Malformed, "%d bytes, more than the %d that are read", len(s), maxTokenBytes)
	}
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
	c := compact{signed: raw[:last]}
	decoded := make([]byte, 0, base64url.DecodedLen(len(raw)))
	for _, part := range []struct {
		name string
		from []byte
		to   *[]byte
	}{
		{"header", raw[:first], &c.header},
		{"payload", raw[first+1 : last], &c.payload},
		{"signature", raw[last+1:], &c.signature},
	} {
		if len(part.from) == 0 {
			return compact{}, refuse(Malformed, "the %s segment is empty", part.name)
		}
		start := len(decoded)
		var err error
		if decoded, err = base64url.AppendDecode(decoded, part.from); err != nil {
			return compact{}, refuse(Malformed, "the %s segment is not canonical base64url (RFC 7515 §2)", part.name)
		}
		*part.to = decoded[start:len(decoded):len(decoded)]
	}
	return c, nil
}
