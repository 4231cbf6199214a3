package impl

import (
	"fmt"
	"strings"
	"testing"

	"github.com/oasgate/oasgate/authz"
)

// TestBadInputs: requests that the document does not allow never reach a handler. Each differs in
// one respect from a valid request, gets exactly this response, and changes nothing in the store.
func TestBadInputs(t *testing.T) {
	const (
		parameter = authz.InvalidParameter
		body      = authz.InvalidBody
		media     = authz.UnsupportedMediaType

		list   = "GET /api/messages"
		post   = "POST /api/messages"
		put    = "PUT /api/messages/{id}"
		get    = "GET /api/messages/{id}"
		remove = "DELETE /api/messages/{id}"

		json  = "Content-Type: application/json\n"
		match = "If-Match: *\n"
		good  = `{"text":"x"}`
	)
	const (
		unknown   = "The query has a parameter that this operation does not declare."
		twice     = "The query parameter limit occurs more than once."
		malformed = "The query is malformed."
		notText   = "The query parameter limit is not text."
		notJSON   = "The body is not valid JSON (at byte 9)."
		noSuch    = "This API has nothing at this path."
		badID     = "The path parameter id does not match the pattern " +
			"^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$."
		badKey   = "The header parameter Idempotency-Key does not match the pattern ^[!-~]{1,64}$."
		badMatch = "The header parameter If-Match does not match the pattern " +
			"^(\\*|(W/)?\"[!#-~]*\"( *, *(W/)?\"[!#-~]*\")*)$."
		badCursor = "The query parameter cursor does not match the pattern ^[A-Za-z0-9_-]{27}$."
		noBody    = "This operation does not accept a body."
		extra     = "The body at /* is not declared in the schema."
		noObject  = "The body is not of type object."
		noString  = "The body at /text is not of type string."
		badLimit  = "The query parameter limit is not of type integer."
		allow     = "The Allow header lists the methods of this path."
		badType   = "This operation does not accept a body of this Content-Type."
	)
	tests := []struct {
		name    string
		line    string // method and target
		headers string // in addition to Host, Authorization and Content-Length
		body    string
		status  int
		kind    authz.Kind // "": the API's own
		detail  string
	}{
		// The body.
		{"no body", post, json, "", 400, body, "The body is missing."},
		{"empty text", post, json, `{"text":""}`, 400, body, "The body at /text is shorter than 1 characters."},
		{"text too long", post, json, `{"text":"` + strings.Repeat("x", 1001) + `"}`, 400, body, "The body at /text is longer than 1000 characters."},
		{"text too long, in characters", post, json, `{"text":"` + strings.Repeat("😀", 1001) + `"}`, 400, body, "The body at /text is longer than 1000 characters."},
		{"no member", post, json, `{}`, 400, body, "The body at /text is missing."},
		{"a member too many", post, json, `{"text":"x","id":"1"}`, 400, body, extra},
		{"owner", post, json, `{"text":"x","author":{"issuer":"i","subject":"bob"}}`, 400, body, extra},
		{"prototype", post, json, `{"text":"x","__proto__":{}}`, 400, body, extra},
		{"another case", post, json, `{"TEXT":"x"}`, 400, body, "The body at /text is missing."},
		{"another case beside", post, json, `{"text":"x","Text":"y"}`, 400, body, extra},
		{"twice", post, json, `{"text":"x","text":"y"}`, 400, body, "The body has an object with two members of the same name (at byte 12)."},
		{"twice, once escaped", post, json, `{"text":"x","te\u0078t":"y"}`, 400, body, "The body has an object with two members of the same name (at byte 12)."},
		{"null text", post, json, `{"text":null}`, 400, body, "The body at /text is not of type string."},
		{"number", post, json, `{"text":1}`, 400, body, noString},
		{"boolean", post, json, `{"text":true}`, 400, body, noString},
		{"array", post, json, `{"text":["x"]}`, 400, body, noString},
		{"object", post, json, `{"text":{"x":1}}`, 400, body, noString},
		{"null", post, json, `null`, 400, body, "The body is not of type object."},
		{"array around", post, json, `[{"text":"x"}]`, 400, body, noObject},
		{"string around", post, json, `"{\"text\":\"x\"}"`, 400, body, noObject},
		{"bare string", post, json, `"x"`, 400, body, noObject},
		{"trailing bytes", post, json, `{"text":"x"}x`, 400, body, "The body has something after its JSON value."},
		{"two values", post, json, `{"text":"x"}{"text":"y"}`, 400, body, "The body has something after its JSON value."},
		{"trailing comma", post, json, `{"text":"x",}`, 400, body, "The body is not valid JSON (at byte 12)."},
		{"comment", post, json, `{"text":"x"/**/}`, 400, body, "The body is not valid JSON (at byte 11)."},
		{"single quotes", post, json, `{'text':'x'}`, 400, body, "The body is not valid JSON (at byte 1)."},
		{"cut short", post, json, `{"text":"x"`, 400, body, "The body is not valid JSON (at byte 11)."},
		{"spaces", post, json, `   `, 400, body, "The body is empty."},
		{"byte order mark", post, json, "\ufeff" + good, 400, body, "The body is not valid JSON (at byte 0)."},
		{"invalid UTF-8", post, json, "{\"text\":\"\xff\"}", 400, body, notJSON},
		{"overlong UTF-8", post, json, "{\"text\":\"\xc0\xaf\"}", 400, body, notJSON},
		{"half a surrogate pair", post, json, `{"text":"\ud83d"}`, 400, body, notJSON},
		{"raw control character", post, json, "{\"text\":\"a\nb\"}", 400, body, "The body is not valid JSON (at byte 10)."},
		{"raw NUL", post, json, "{\"text\":\"\x00\"}", 400, body, notJSON},
		{"escaped NUL", post, json, `{"text":"a\u0000b"}`, 400, body, "The body at /text does not match the pattern ^[^\\x00]*$."},
		{"UTF-16", post, json, "\xff\xfe{\x00}\x00", 400, body, "The body is not valid JSON (at byte 0)."},
		{"deep", post, json, strings.Repeat("[", 20000), 400, body, "The body is not valid JSON (at byte 10000)."},
		{"large", post, json, `{"text":"` + strings.Repeat("x", 1<<20) + `"}`, 413, authz.BodyTooLarge, "The body exceeds the limit of 1048576 bytes."},
		{"put: no body", put, match + json, "", 400, body, "The body is missing."},
		{"put: empty text", put, match + json, `{"text":""}`, 400, body, "The body at /text is shorter than 1 characters."},
		{"put: owner", put, match + json, `{"text":"x","author":{"issuer":"i","subject":"bob"}}`, 400, body, extra},
		{"put: version", put, match + json, `{"text":"x","version":9}`, 400, body, extra},

		// The media type of the body.
		{"no Content-Type", post, "", good, 415, media, "The request has 0 Content-Type headers, expected one."},
		{"two Content-Types", post, json + json, good, 415, media, "The request has 2 Content-Type headers, expected one."},
		{"text", post, "Content-Type: text/plain\n", good, 415, media, badType},
		{"form", post, "Content-Type: application/x-www-form-urlencoded\n", "text=x", 415, media, badType},
		{"xml", post, "Content-Type: application/xml\n", "<text>x</text>", 415, media, badType},
		{"merge patch", post, "Content-Type: application/merge-patch+json\n", good, 415, media, badType},
		{"malformed Content-Type", post, "Content-Type: application/json;;\n", good, 415, media, "The Content-Type is malformed."},
		{"list of Content-Types", post, "Content-Type: application/json, text/plain\n", good, 415, media, "The Content-Type is malformed."},
		{"charset", post, "Content-Type: application/json; charset=utf-16\n", good, 415, media, "The body's charset is not supported: send UTF-8."},
		{"gzip", post, json + "Content-Encoding: gzip\n", good, 415, media, "Content-Encoding is not supported: send the body as it is."},
		{"identity, gzip", post, json + "Content-Encoding: identity\nContent-Encoding: gzip\n", good, 415, media, "Content-Encoding is not supported: send the body as it is."},

		// Bodies of operations without requestBody.
		{"body of a list", list, json, good, 400, body, noBody},
		{"body of a get", get, json, good, 400, body, noBody},
		{"body of a delete", remove, match + json, good, 400, body, noBody},
		{"body of a greeting", "GET /api/private", json, good, 400, body, noBody},

		// The query.
		{"unknown", list + "?page=1", "", "", 400, parameter, unknown},
		{"another case of limit", list + "?Limit=1", "", "", 400, parameter, unknown},
		{"escaped name", list + "?lim%69t=1&limit=1", "", "", 400, parameter, twice},
		{"unknown where there are none", get + "?x=1", "", "", 400, parameter, unknown},
		{"query of a post", post + "?text=x", json, good, 400, parameter, unknown},
		{"query of a greeting", "GET /api/private?x", "", "", 400, parameter, unknown},
		{"array syntax", list + "?limit[]=1", "", "", 400, parameter, unknown},
		{"limit twice", list + "?limit=1&limit=2", "", "", 400, parameter, twice},
		{"cursor twice", list + "?cursor=a&cursor=a", "", "", 400, parameter, "The query parameter cursor occurs more than once."},
		{"malformed escape", list + "?limit=%zz", "", "", 400, parameter, malformed},
		{"half an escape", list + "?limit=%4", "", "", 400, parameter, malformed},
		{"semicolon", list + "?limit=1;cursor=a", "", "", 400, parameter, malformed},
		{"NUL", list + "?limit=1%00", "", "", 400, parameter, notText},
		{"invalid UTF-8 in the query", list + "?cursor=%ff", "", "", 400, parameter, "The query parameter cursor is not text."},
		{"limit 0", list + "?limit=0", "", "", 400, parameter, "The query parameter limit is out of range: minimum is 1."},
		{"limit 101", list + "?limit=101", "", "", 400, parameter, "The query parameter limit is out of range: maximum is 100."},
		{"limit -1", list + "?limit=-1", "", "", 400, parameter, "The query parameter limit is out of range: minimum is 1."},
		{"limit 1.5", list + "?limit=1.5", "", "", 400, parameter, badLimit},
		{"limit 0x10", list + "?limit=0x10", "", "", 400, parameter, badLimit},
		{"limit beyond numbers", list + "?limit=99999999999999999999", "", "", 400, parameter, "The query parameter limit is out of range: maximum is 100."},
		{"limit with a plus", list + "?limit=+1", "", "", 400, parameter, badLimit},
		{"limit of words", list + "?limit=all", "", "", 400, parameter, badLimit},
		{"empty limit", list + "?limit=", "", "", 400, parameter, badLimit},
		{"empty cursor", list + "?cursor=", "", "", 400, parameter, badCursor},
		{"short cursor", list + "?cursor=a", "", "", 400, parameter, badCursor},
		{"padded cursor", list + "?cursor=AZrXyAmzcgS_kqjO-AZRj_3T4-0=", "", "", 400, parameter, badCursor},
		{"cursor of another alphabet", list + "?cursor=AZrXyAmzcgS/kqjO%2BAZRjy1m7Yw", "", "", 400, parameter, badCursor},
		{"made-up cursor", list + "?cursor=AAAAAAAAAAAAAAAAAAAAAAAAAAA", "", "", 400, parameter, "The query parameter cursor is not one that this API has given."},
		{"SQL", list + "?cursor='%20OR%20'1'='1", "", "", 400, parameter, badCursor},

		// The id.
		{"id of words", "GET /api/messages/newest", "", "", 400, parameter, badID},
		{"upper case id", "GET /api/messages/019AD7C8-09B3-7204-BF92-A8CEF806518F", "", "", 400, parameter, badID},
		{"UUIDv4", "GET /api/messages/019ad7c8-09b3-4204-bf92-a8cef806518f", "", "", 400, parameter, badID},
		{"another variant", "GET /api/messages/019ad7c8-09b3-7204-cf92-a8cef806518f", "", "", 400, parameter, badID},
		{"id without hyphens", "GET /api/messages/019ad7c809b37204bf92a8cef806518f", "", "", 400, parameter, badID},
		{"id in braces", "GET /api/messages/%7B019ad7c8-09b3-7204-bf92-a8cef806518f%7D", "", "", 400, parameter, badID},
		{"id with a space", "GET /api/messages/{id}%20", "", "", 400, parameter, badID},
		{"id with a newline", "GET /api/messages/{id}%0a", "", "", 400, parameter, badID},
		{"id with a NUL", "GET /api/messages/{id}%00", "", "", 400, parameter, "The path parameter id is not text."},
		{"id that is no UTF-8", "GET /api/messages/{id}%ff", "", "", 400, parameter, "The path parameter id is not text."},
		{"id escaped twice", "GET /api/messages/%2530{id1}", "", "", 400, parameter, badID},
		{"id with a slash", "GET /api/messages/{id}%2Fx", "", "", 400, parameter, badID},
		{"id too long", "GET /api/messages/{id}{id}", "", "", 400, parameter, badID},
		{"deleting by words", "DELETE /api/messages/*", match, "", 400, parameter, badID},
		{"putting to words", "PUT /api/messages/mine", match + json, good, 400, parameter, badID},
		{"a segment more", "GET /api/messages/{id}/text", "", "", 404, authz.NotFound, noSuch},
		{"a slash more", "GET /api/messages/{id}/", "", "", 404, authz.NotFound, noSuch},
		{"no id", "GET /api/messages/", "", "", 404, authz.NotFound, noSuch},
		{"two slashes", "GET /api//messages", "", "", 404, authz.NotFound, noSuch},
		{"dots", "GET /api/messages/../messages", "", "", 404, authz.NotFound, noSuch},
		{"another case of the path", "GET /api/Messages", "", "", 404, authz.NotFound, noSuch},

		// Methods.
		{"patch", "PATCH /api/messages/{id}", match + json, good, 405, authz.MethodNotAllowed, allow},
		{"put without an id", "PUT /api/messages", match + json, good, 405, authz.MethodNotAllowed, allow},
		{"delete without an id", "DELETE /api/messages", match, "", 405, authz.MethodNotAllowed, allow},
		{"post to an id", "POST /api/messages/{id}", json, good, 405, authz.MethodNotAllowed, allow},
		{"options", "OPTIONS /api/messages", "", "", 405, authz.MethodNotAllowed, allow},
		{"override", "POST /api/messages/{id}", json + "X-HTTP-Method-Override: DELETE\n", good, 405, authz.MethodNotAllowed, allow},

		// Headers.
		{"empty key", post, json + "Idempotency-Key: \n", good, 400, parameter, badKey},
		{"key too long", post, json + "Idempotency-Key: " + strings.Repeat("k", 65) + "\n", good, 400, parameter, badKey},
		{"key with a space", post, json + "Idempotency-Key: a b\n", good, 400, parameter, badKey},
		{"key beyond ASCII", post, json + "Idempotency-Key: schlüssel\n", good, 400, parameter, badKey},
		{"key that is no UTF-8", post, json + "Idempotency-Key: \xff\n", good, 400, parameter, "The header parameter Idempotency-Key is not text."},
		{"two keys", post, json + "Idempotency-Key: a\nIdempotency-Key: a\n", good, 400, parameter, "The header parameter Idempotency-Key occurs more than once."},
		{"tag without quotes", put, json + "If-Match: 1\n", good, 400, parameter, badMatch},
		{"half a quote", put, json + "If-Match: \"1\n", good, 400, parameter, badMatch},
		{"weak in lower case", put, json + "If-Match: w/\"1\"\n", good, 400, parameter, badMatch},
		{"star among tags", put, json + "If-Match: \"1\", *\n", good, 400, parameter, badMatch},
		{"comma at the end", put, json + "If-Match: \"1\",\n", good, 400, parameter, badMatch},
		{"empty If-Match", put, json + "If-Match: \n", good, 400, parameter, badMatch},
		{"two If-Matches", put, json + match + match, good, 400, parameter, "The header parameter If-Match occurs more than once."},
		{"many tags", put, json + "If-Match: " + strings.Repeat(`"1",`, 250) + "\"1\"\n", good, 400, parameter, "The header parameter If-Match is longer than 1000 characters."},
		{"delete: tag without quotes", remove, "If-Match: 1\n", "", 400, parameter, badMatch},
		{"get: tag without quotes", get, "If-None-Match: 1\n", "", 400, parameter, "The header parameter If-None-Match does not match the pattern ^(\\*|(W/)?\"[!#-~]*\"( *, *(W/)?\"[!#-~]*\")*)$."},
		{"no If-Match", put, json, good, 400, parameter, "The header parameter If-Match is missing."},
		{"If-None-Match in its place", put, json + "If-None-Match: \"2\"\n", good, 400, parameter, "The header parameter If-Match is missing."},
		{"a date in its place", remove, "If-Unmodified-Since: Mon, 23 Nov 2026 21:00:00 GMT\n", "", 400, parameter, "The header parameter If-Match is missing."},
	}
	seen := map[string]bool{}
	for _, test := range tests {
		if seen[test.name] {
			t.Errorf("two tests are called %q", test.name)
		}
		seen[test.name] = true
	}

	onEachDatabase(t, func(t *testing.T, database string) {
		r, s := startMessages(t, StoreConfig{URL: database})
		alice := r.as("alice", readAndWrite)
		m := alice.post(t, "as it was")
		before := contents(t, s)
		for _, test := range tests {
			t.Run(test.name, func(t *testing.T) {
				line := strings.NewReplacer("{id}", m.Id, "{id1}", m.Id[1:]).Replace(test.line)
				length := ""
				if test.body != "" {
					length = fmt.Sprintf("Content-Length: %d\r\n", len(test.body))
				}
				got := r.raw(t, line+" HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer "+
					alice.token+"\r\n"+
					strings.ReplaceAll(test.headers, "\n", "\r\n")+length+"\r\n"+test.body)
				wantRefusal(t, got, test.status, test.kind, test.detail)
				if after := contents(t, s); after != before {
					t.Errorf("the store has changed, from\n%s to\n%s", before, after)
				}
			})
		}
		// The same request without what is wrong with it.
		for _, line := range []string{list + "?limit=1", get, post, put, remove} {
			headers := match
			payload := ""
			if line == post || line == put {
				headers, payload = match+json, good
			}
			got := r.raw(t, strings.ReplaceAll(line, "{id}", m.Id)+
				" HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer "+alice.token+"\r\n"+
				strings.ReplaceAll(headers, "\n", "\r\n")+fmt.Sprintf("Content-Length: %d\r\n\r\n",
				len(payload))+payload)
			if got.status >= 300 {
				t.Errorf("%s: %d %s", line, got.status, got.body)
			}
		}
	})
}
