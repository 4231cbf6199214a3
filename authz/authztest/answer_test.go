package authztest

import (
	"fmt"
	"testing"
)

// TestParseChallenges includes the example of RFC 9110 §11.6.1.
func TestParseChallenges(t *testing.T) {
	for _, test := range []struct {
		headers []string
		want    string
	}{
		{nil, `[]`},
		{[]string{`Bearer`}, `[{Bearer map[]}]`},
		{[]string{`Bearer realm="a b, c=d"`}, `[{Bearer map[realm:a b, c=d]}]`},
		{[]string{`bearer REALM = "x" ,error=invalid_token`}, `[{bearer map[error:invalid_token realm:x]}]`},
		{[]string{`Basic realm="simple", Newauth realm="apps", type=1, title="Login to \"apps\""`}, `[{Basic map[realm:simple]} {Newauth map[realm:apps title:Login to "apps" type:1]}]`},
		{[]string{`Basic realm=x`, `Bearer scope="a b"`}, `[{Basic map[realm:x]} {Bearer map[scope:a b]}]`},
		{[]string{`, ,Negotiate, Bearer error="x`}, `[{Negotiate map[]} {Bearer map[error:x]}]`},
		// A token68 is not parsed, and does not prevent the rest from being parsed.
		{[]string{`Negotiate YWJj==`, `Bearer realm="r"`}, `[{Negotiate map[ywjj:]} {Bearer map[realm:r]}]`},
		{[]string{`"quoted"`, `realm="no scheme"`}, `[]`},
	} {
		if got := fmt.Sprint(parseChallenges(test.headers)); got != test.want {
			t.Errorf("parseChallenges(%q) = %s, want %s", test.headers, got, test.want)
		}
	}
}
