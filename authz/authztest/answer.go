package authztest

import (
	"encoding/json"
	"fmt"
	"mime"
	"net/http"
	"slices"
	"strings"

	"github.com/oasgate/oasgate/authz"
)

// answer is a response.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// faults compares a response with what the case expects. Each fault is a sentence that names what
// was expected and what was received.
func (c Case) faults(got answer, only6750 bool) (faults []string) {
	fault := func(format string, args ...any) {
		faults = append(faults, fmt.Sprintf(format, args...))
	}
	if c.Want == "" {
		switch got.status {
		case http.StatusUnauthorized, http.StatusForbidden:
			fault(
				"expected the request to be accepted, received %d, WWW-Authenticate: %s",
				got.status,
				strings.Join(got.header.Values("WWW-Authenticate"), ", "),
			)
		case http.StatusMethodNotAllowed, http.StatusServiceUnavailable:
			fault(
				"expected the request to be accepted, received %d: does the server have the "+
					"operation, and is the token issuer up?",
				got.status,
			)
		}
		return faults
	}
	want := (&authz.Error{Kind: c.Want}).Status()
	if got.status != want {
		fault("expected %d (%s), received %d", want, c.Want, got.status)
		return faults // the rest follows from it
	}
	c.checkChallenge(got, only6750, fault)
	if c.Want == authz.KeysUnavailable && got.header.Get("Retry-After") == "" {
		fault("expected a Retry-After header, received none")
	}
	if only6750 {
		return faults
	}
	if (want == http.StatusUnauthorized || want == http.StatusForbidden) &&
		!strings.Contains(got.header.Get("Cache-Control"), "no-store") {
		fault("expected Cache-Control: no-store, received %q", got.header.Get("Cache-Control"))
	}
	if c.Operation.Method != http.MethodHead {
		checkProblem(got, fault)
	}
	return faults
}

// checkChallenge checks WWW-Authenticate (RFC 6750 §3).
func (c Case) checkChallenge(got answer, only6750 bool, fault func(string, ...any)) {
	received := strings.Join(got.header.Values("WWW-Authenticate"), ", ")
	challenges := parseChallenges(got.header.Values("WWW-Authenticate"))
	switch c.Want {
	case authz.KeysUnavailable:
		if received != "" {
			fault(
				"expected no WWW-Authenticate, because the token could not be verified; "+
					"received %s",
				received,
			)
		}
	case authz.InsufficientRole, authz.CrossOrigin, authz.Denied: // no other token grants access
	case authz.InvalidProof: // RFC 9449 §7.1: either the proof or the token is to blame
		code := ""
		if dpop := ofScheme(challenges, "DPoP"); len(dpop) == 1 {
			code = dpop[0].params["error"]
		}
		if code != "invalid_dpop_proof" && code != "invalid_token" {
			fault(`expected a DPoP challenge with error="invalid_dpop_proof", received %q`,
				received)
		}
	case authz.MissingCredential, authz.InvalidCredential:
		if received == "" {
			fault("expected WWW-Authenticate with a challenge (RFC 9110 §15.5.2), received none")
		}
	default:
		bearer := ofScheme(challenges, "Bearer")
		if len(bearer) != 1 {
			fault("expected WWW-Authenticate with one Bearer challenge, received %q", received)
			return
		}
		c.checkBearer(bearer[0].params, received, only6750, fault)
	}
}

func ofScheme(challenges []challenge, scheme string) []challenge {
	return slices.DeleteFunc(slices.Clone(challenges), func(c challenge) bool {
		return !strings.EqualFold(c.scheme, scheme)
	})
}

// checkBearer checks the parameters of a Bearer challenge.
func (c Case) checkBearer(
	params map[string]string,
	received string,
	only6750 bool,
	fault func(string, ...any),
) {
	if _, ok := params["realm"]; !ok && !only6750 {
		fault("expected a challenge with a realm, received %s", received)
	}
	code := map[authz.Kind]string{authz.InvalidToken: "invalid_token",
		authz.InsufficientScope: "insufficient_scope"}[c.Want]
	switch {
	case code == "" && params["error"] != "":
		fault(
			"expected a challenge without error, because no token was sent (RFC 6750 §3.1); "+
				"received %s",
			received,
		)
	case params["error"] != code:
		fault(`expected a challenge with error="%s", received %s`, code, received)
	}
	scope, named := params["scope"]
	if c.Want != authz.InsufficientScope || only6750 && !named {
		return
	}
	if c.mixed {
		return // which alternative is nearest depends on more than the token
	}
	sets := nearest(c.Operation, c.Scopes)
	if c.names != nil {
		for i := range sets {
			sets[i] = slices.Sorted(slices.Values(c.names(sets[i])))
		}
	}
	said := strings.Fields(scope)
	slices.Sort(said)
	if !slices.ContainsFunc(sets, func(set []string) bool { return slices.Equal(set, said) }) {
		var expected []string
		for _, set := range sets {
			expected = append(expected, `scope="`+strings.Join(set, " ")+`"`)
		}
		fault("expected a challenge with %s, received %s", strings.Join(expected, " or "), received)
	}
}

// checkProblem checks a problem document (RFC 9457 §3).
func checkProblem(got answer, fault func(string, ...any)) {
	contentType := got.header.Get("Content-Type")
	if media, _, err := mime.ParseMediaType(contentType); err != nil ||
		media != "application/problem+json" {
		fault("expected Content-Type: application/problem+json, received %q", contentType)
		return
	}
	var problem struct {
		Type, Title string
		Status      int
	}
	if err := json.Unmarshal(got.body, &problem); err != nil {
		fault(
			"expected a problem document (RFC 9457), received something other than a JSON object "+
				"of that "+
				"form: %v",
			err,
		)
		return
	}
	if problem.Type == "" || problem.Title == "" {
		fault(
			"expected a problem document with type and title, received type %q and title %q",
			problem.Type,
			problem.Title,
		)
	}
	if problem.Status != got.status {
		fault(
			"expected the status of the problem document to be that of the response, %d; "+
				"received %d",
			got.status,
			problem.Status,
		)
	}
}

// repeats reports whether a response contains a secret of the request.
func (a answer) repeats(secret string) bool {
	if strings.Contains(string(a.body), secret) {
		return true
	}
	for _, values := range a.header {
		if slices.ContainsFunc(values, func(v string) bool { return strings.Contains(v, secret) }) {
			return true
		}
	}
	return false
}

// challenge is a challenge of WWW-Authenticate (RFC 9110 §11.6.1).
type challenge struct {
	scheme string
	params map[string]string // names in lower case
}

// parseChallenges parses lists of challenges. A word followed by = is a parameter of the preceding
// challenge; any other word begins a challenge. Parsing ends at a syntax error, so that the caller
// does not find what it expects.
func parseChallenges(headers []string) (all []challenge) {
	for _, s := range headers {
		for {
			s = strings.TrimLeft(s, " \t,")
			word := s[:len(s)-len(strings.TrimLeftFunc(s, isTokenRune))]
			if word == "" {
				break
			}
			s = s[len(word):]
			rest, isParam := strings.CutPrefix(strings.TrimLeft(s, " \t"), "=")
			if !isParam {
				all = append(all, challenge{word, map[string]string{}})
				continue
			}
			if len(all) == 0 {
				break
			}
			var value string
			value, s = cutValue(strings.TrimLeft(rest, " \t"))
			all[len(all)-1].params[strings.ToLower(word)] = value
		}
	}
	return all
}

// cutValue cuts a token or a quoted-string (RFC 9110 §5.6.4) from the front.
func cutValue(s string) (value, rest string) {
	if !strings.HasPrefix(s, `"`) {
		rest = strings.TrimLeftFunc(s, isTokenRune)
		return s[:len(s)-len(rest)], rest
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch {
		case s[i] == '"':
			return b.String(), s[i+1:]
		case s[i] == '\\' && i+1 < len(s):
			i++
		}
		b.WriteByte(s[i])
	}
	return b.String(), ""
}

// isTokenRune reports whether a character is a tchar (RFC 9110 §5.6.2).
func isTokenRune(r rune) bool {
	return r > ' ' && r < 0x7f && !strings.ContainsRune(`"(),/:;<=>?@[\]{}`, r)
}
