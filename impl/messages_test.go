package impl

import (
	"context"

	"encoding/json"
	"errors"
	"fmt"

	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/oasgate/oasgate/authz"
	"github.com/oasgate/oasgate/authz/server"
	"github.com/oasgate/oasgate/gen"
	"github.com/oasgate/oasgate/gen/apiclient"
	"github.com/oasgate/oasgate/impl/messages"
)

// startMessages serves with a store.
func startMessages(t *testing.T, config StoreConfig) (*running, *Store) {
	t.Helper()
	s := open(t, config)
	return start(t, withHandlers(Handlers{Messages: s})), s
}

// client is somebody with a token.
type client struct {
	*running
	token string
}

// as returns a client with a token of a subject, with scopes.
func (r *running) as(subject, scopes string) client {
	return client{r, r.issuer.Mint(map[string]any{"sub": subject, "scope": scopes})}
}

const (
	readAndWrite = "read:messages write:messages"
	operator     = "read:messages:all"
)

// ask sends a request with the token, and with a JSON body if there is one. headers are name,
// value, name, value.
func (c client) ask(t *testing.T, method, path, body string, headers ...string) answer {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, c.url+path,
		strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+c.token)
	if body != "" {
		request.Header.Set("Content-Type", "application/json")
	}
	for pair := range slices.Chunk(headers, 2) {
		request.Header.Set(pair[0], pair[1])
	}
	return read(t, request)
}

// post creates a message, which must succeed.
func (c client) post(t *testing.T, text string) gen.Message {
	t.Helper()
	body, _ := json.Marshal(map[string]string{"text": text})
	return decode[gen.Message](t, c.ask(t, "POST", messagesPath, string(body)), http.StatusCreated)
}

func decode[T any](t *testing.T, got answer, status int) (v T) {
	t.Helper()
	if err := json.Unmarshal([]byte(got.body), &v); got.status != status || err != nil {
		t.Fatalf("answered with %d %s (%v), want %d", got.status, got.body, err, status)
	}
	return v
}

// wantRefusal checks a problem document member by member. kind "" is the API's own for the status.
func wantRefusal(t *testing.T, got answer, status int, kind authz.Kind, detail string) {
	t.Helper()
	wantProblem(t, got, status)
	uri := map[int]string{
		http.StatusPreconditionFailed:  string(messages.PreconditionFailed),
		http.StatusUnprocessableEntity: string(messages.IdempotencyKeyReused),
	}[status]
	if kind != "" {
		uri = authz.ProblemTypes + string(kind)
	}
	p := decode[gen.Problem](t, got, status)
	if p.Type != uri || deref(p.Detail) != detail {
		t.Errorf("refused with\n  %s, %q, want\n  %s, %q", p.Type, deref(p.Detail), uri, detail)
	}
}

const (
	noMessage = "There is no such message."
	isChanged = "The message has changed since. Get it again for its ETag."
)

func TestMessage(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, database string) {
		r, _ := startMessages(t, StoreConfig{URL: database})
		alice := r.as("alice", readAndWrite)
		begun := time.Now().Truncate(time.Millisecond)
		got := alice.ask(t, "POST", messagesPath, `{"text":"Hello"}`)
		m := decode[gen.Message](t, got, http.StatusCreated)
		at := messagesPath + "/" + m.Id
		if got.header.Get("Location") != at || got.header.Get("ETag") != `"1"` {
			t.Errorf("created: Location %q, ETag %q; want %s, %q", got.header.Get("Location"),
				got.header.Get("ETag"), at, `"1"`)
		}
		if want := (gen.Author{Issuer: r.issuer.URL(), Subject: "alice"}); m.Text != "Hello" ||
			m.Author != want ||
			m.Created.Before(begun) ||
			m.Created.After(time.Now()) {
			t.Errorf("created: %+v", m)
		}

		same := alice.ask(t, "GET", at, "")
		if same.status != http.StatusOK || same.body != got.body ||
			same.header.Get("ETag") != `"1"` {
			t.Errorf("got: %d %s, ETag %q; want what was created", same.status, same.body,
				same.header.Get("ETag"))
		}
		for tags, status := range map[string]int{
			`"1"`: 304, `W/"1"`: 304, `*`: 304, `"0", "1"`: 304, `"a,b" ,W/"1"`: 304,
			`"2"`: 200, `W/"2", "01"`: 200, `""`: 200, `"1,"`: 200, `"W/"`: 200,
		} {
			got := alice.ask(t, "GET", at, "", "If-None-Match", tags)
			if got.status != status || got.header.Get("ETag") != `"1"` ||
				(status == 304) != (got.body == "") {
				t.Errorf("If-None-Match: %s is answered with %d, ETag %q, %q; want %d", tags,
					got.status, got.header.Get("ETag"), got.body, status)
			}
		}

		for _, test := range []struct {
			tags    string
			matches bool
		}{
			{`"1"`, true}, {`*`, true}, {`"x", "3"`, true}, {`"4","5"`, true}, // each makes the next version
			{`"1"`, false}, {`W/"5"`, false}, {`""`, false}, {`"05"`, false}, {`"4", W/"5", "6"`, false},
		} {
			got := alice.ask(t, "PUT", at, `{"text":"changed"}`, "If-Match", test.tags)
			if test.matches {
				if now := decode[gen.Message](t, got, http.StatusOK); now.Text != "changed" ||
					now.Id != m.Id ||
					now.Created != m.Created ||
					now.Author != m.Author {
					t.Errorf("If-Match: %s: replaced by %+v", test.tags, now)
				}
				m.Text = "changed"
				continue
			}
			wantRefusal(t, got, http.StatusPreconditionFailed, "", isChanged)
			wantRefusal(t, alice.ask(t, "DELETE", at, "", "If-Match", test.tags),
				http.StatusPreconditionFailed, "", isChanged)
		}
		if got := alice.ask(t, "GET", at, ""); got.header.Get("ETag") != `"5"` ||
			decode[gen.Message](t, got, 200) != m {
			t.Errorf("after four changes: ETag %q, %s", got.header.Get("ETag"), got.body)
		}

		const needed = "The header parameter If-Match is missing."
		wantRefusal(t, alice.ask(t, "PUT", at, `{"text":"blind"}`), http.StatusBadRequest,
			authz.InvalidParameter, needed)
		wantRefusal(t, alice.ask(t, "DELETE", at, ""), http.StatusBadRequest,
			authz.InvalidParameter, needed)

		if got := alice.ask(t, "DELETE", at, "", "If-Match",
			`"5"`); got.status != http.StatusNoContent ||
			got.body != "" {
			t.Errorf("deleted: %d %q", got.status, got.body)
		}
		wantRefusal(t, alice.ask(t, "GET", at, ""), http.StatusNotFound, authz.NotFound, noMessage)
		wantRefusal(t, alice.ask(t, "GET", at, "", "If-None-Match", "*"), http.StatusNotFound,
			authz.NotFound, noMessage)
		wantRefusal(t, alice.ask(t, "DELETE", at, "", "If-Match", "*"), http.StatusNotFound,
			authz.NotFound, noMessage)
		wantRefusal(t, alice.ask(t, "PUT", at, `{"text":"x"}`, "If-Match", "*"),
			http.StatusNotFound, authz.NotFound, noMessage)
	})
}

// TestOtherPeoplesMessages is OWASP API1:2023: the object decides as much as the operation.
func TestOtherPeoplesMessages(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, database string) {
		r, s := startMessages(t, StoreConfig{URL: database})
		alice := r.as("alice", readAndWrite)
		m := alice.post(t, "Alice's")
		at := messagesPath + "/" + m.Id
		create(t, s, Owner{"https://elsewhere.example/", "alice"}, "another Alice's")
		all := contents(t, s)

		for name, test := range map[string]struct {
			who   client
			list  []string // texts
			reads bool
		}{
			"bob":                     {r.as("bob", readAndWrite), nil, false},
			"ALICE":                   {r.as("ALICE", readAndWrite), nil, false},
			"alice with a space":      {r.as("alice ", readAndWrite), nil, false},
			"operator":                {r.as("olga", operator), []string{"another Alice's", "Alice's"}, true},
			"operator who may do all": {r.as("olga", operator+" "+readAndWrite), []string{"another Alice's", "Alice's"}, true},
		} {
			t.Run(name, func(t *testing.T) {
				list := decode[gen.MessageList](t, test.who.ask(t, "GET", messagesPath, ""),
					http.StatusOK)
				var texts []string
				for _, m := range list.Messages {
					texts = append(texts, m.Text)
				}
				if !slices.Equal(texts, test.list) {
					t.Errorf("lists %q, want %q", texts, test.list)
				}
				got := test.who.ask(t, "GET", at, "")
				if test.reads {
					if decode[gen.Message](t, got, http.StatusOK) != m {
						t.Errorf("gets %s, want %+v", got.body, m)
					}
				} else {
					wantRefusal(t, got, http.StatusNotFound, authz.NotFound, noMessage)
				}
				// The response does not reveal whether the message exists.
				for _, path := range []string{at,
					messagesPath + "/019ad7c8-09b3-7204-bf92-a8cef806518f"} {
					put := test.who.ask(t, "PUT", path, `{"text":"stolen"}`, "If-Match", "*")
					del := test.who.ask(t, "DELETE", path, "", "If-Match", `"1"`)
					if name == "operator" { // who has no scope to write at all
						wantProblem(t, put, http.StatusForbidden)
						wantProblem(t, del, http.StatusForbidden)
						continue
					}
					wantRefusal(t, put, http.StatusNotFound, authz.NotFound, noMessage)
					wantRefusal(t, del, http.StatusNotFound, authz.NotFound, noMessage)
				}
				if now := contents(t, s); now != all {
					t.Errorf("the store has changed from\n%s to\n%s", all, now)
				}
			})
		}
	})
}

// contents is everything that is in a store.
func contents(t *testing.T, s *Store) string {
	t.Helper()
	var all strings.Builder
	for _, table := range []string{"messages", "idempotency_keys"} {
		rows, err := s.read.QueryContext(t.Context(), "SELECT * FROM "+table+" ORDER BY 1, 2, 3")
		if err != nil {
			t.Fatal(err)
		}
		columns, _ := rows.Columns()
		for rows.Next() {
			row := make([]any, len(columns))
			for i := range row {
				row[i] = new(any)
			}
			if err := rows.Scan(row...); err != nil {
				t.Fatal(err)
			}
			for i := range row {
				fmt.Fprintf(&all, "%q ", fmt.Sprint(*row[i].(*any)))
			}
			fmt.Fprintln(&all, table)
		}
		if err := errors.Join(rows.Err(), rows.Close()); err != nil {
			t.Fatal(err)
		}
	}
	return all.String()
}

func TestIdempotentPost(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, database string) {
		r, s := startMessages(t, StoreConfig{URL: database})
		alice := r.as("alice", readAndWrite)
		first := alice.ask(t, "POST", messagesPath, `{"text":"once"}`, "Idempotency-Key", "k")
		if first.status != http.StatusCreated {
			t.Fatalf("%d %s", first.status, first.body)
		}
		// The same content in another form.
		for _, body := range []string{`{"text":"once"}`, `{ "text" : "on\u0063e" }`} {
			again := alice.ask(t, "POST", messagesPath, body, "Idempotency-Key", "k")
			if again.status != first.status || again.body != first.body ||
				again.header.Get("Location") != first.header.Get("Location") ||
				again.header.Get("ETag") != first.header.Get("ETag") {
				t.Errorf("%s again: %d %s, %v; the first time %d %s, %v", body, again.status,
					again.body, again.header, first.status, first.body, first.header)
			}
		}
		wantRefusal(t,
			alice.ask(t, "POST", messagesPath, `{"text":"twice"}`, "Idempotency-Key", "k"),
			http.StatusUnprocessableEntity, "",
			"This Idempotency-Key was used for another text before. Choose a new one for a new "+
				"message.")
		// A request that was refused has not used its key.
		if got := alice.ask(t, "POST", messagesPath, `{"text":""}`, "Idempotency-Key",
			"k2"); got.status != http.StatusBadRequest {
			t.Errorf("an empty text: %d", got.status)
		}
		if got := alice.ask(t, "POST", messagesPath, `{"text":"now"}`, "Idempotency-Key",
			"k2"); got.status != http.StatusCreated {
			t.Errorf("the key of a request that was refused: %d %s", got.status, got.body)
		}
		if got := r.as("bob", readAndWrite).ask(t, "POST", messagesPath, `{"text":"Bob's"}`,
			"Idempotency-Key", "k"); got.status != http.StatusCreated {
			t.Errorf("Bob's own key of the same name: %d %s", got.status, got.body)
		}
		if n := count(t, s, "messages"); n != 3 {
			t.Errorf("%d messages, want 3", n)
		}
	})
}

// pages follows the links of a list to its end.
func (c client) pages(t *testing.T, limit int) (ids []string) {
	t.Helper()
	link := regexp.MustCompile(`^<(/api/messages\?[^>]*)>; rel="next"$`)
	for path := fmt.Sprintf("%s?limit=%d", messagesPath, limit); ; {
		got := c.ask(t, "GET", path, "")
		page := decode[gen.MessageList](t, got, http.StatusOK)
		for _, m := range page.Messages {
			ids = append(ids, m.Id)
		}
		next := link.FindStringSubmatch(got.header.Get("Link"))
		if (next == nil) != (page.Next == nil) {
			t.Fatalf("Link is %q, next %v: both or none", got.header.Get("Link"), page.Next)
		}
		if next == nil {
			return ids
		}
		if u, err := url.Parse(next[1]); err != nil || u.Query().Get("cursor") != *page.Next ||
			u.Query().Get("limit") != fmt.Sprint(limit) ||
			len(page.Messages) != limit {
			t.Fatalf("%d messages, Link %q, next %q, want %d of each page", len(page.Messages),
				got.header.Get("Link"), *page.Next, limit)
		}
		path = next[1]
	}
}

func TestPages(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, database string) {
		r, s := startMessages(t, StoreConfig{URL: database})
		alice := r.as("alice", readAndWrite)
		if got := alice.ask(t, "GET", messagesPath, ""); got.body != `{"messages":[]}`+"\n" ||
			got.header.Get("Link") != "" {
			t.Errorf("none: %s, Link %q", got.body, got.header.Get("Link"))
		}
		var newestFirst []string
		for range 45 {
			newestFirst = slices.Insert(newestFirst, 0,
				create(t, s, Owner{r.issuer.URL(), "alice"}, "x").ID)
			create(t, s, bob, "between")
		}
		for _, limit := range []int{1, 9, 44, 45, 46, 100} {
			if got := alice.pages(t, limit); !slices.Equal(got, newestFirst) {
				t.Errorf("pages of %d: got %d messages, want %d, newest first", limit, len(got),
					len(newestFirst))
			}
		}
		if got := r.as("olga", operator).pages(t, 7); len(got) != 90 {
			t.Errorf("an operator pages through %d messages, want all 90", len(got))
		}
		if got := decode[gen.MessageList](t, alice.ask(t, "GET", messagesPath, ""), 200); len(
			got.Messages) != 20 {
			t.Errorf("without a limit there are %d messages, want the document's default, 20",
				len(got.Messages))
		}
		// A cursor still works after its message was deleted.
		next := decode[gen.MessageList](t, alice.ask(t, "GET", messagesPath+"?limit=10", ""),
			200).Next
		if got := alice.ask(t, "DELETE", messagesPath+"/"+newestFirst[9], "", "If-Match",
			"*"); got.status != http.StatusNoContent {
			t.Fatal(got.status)
		}
		if got := decode[gen.MessageList](t,
			alice.ask(t, "GET", messagesPath+"?limit=1&cursor="+*next,
				""), 200); got.Messages[0].Id != newestFirst[10] {
			t.Errorf("after the deletion of a message, the page begins with %s, want %s",
				got.Messages[0].Id, newestFirst[10])
		}
	})
}

// The pages contain each message that existed at the first page once, while others create messages.
func TestPagesWhileOthersWrite(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, database string) {
		r, _ := startMessages(t, StoreConfig{URL: database})
		alice := r.as("alice", readAndWrite)
		var mu sync.Mutex
		var created []string
		done := make(chan struct{})
		var writers sync.WaitGroup
		for range 3 {
			writers.Go(func() {
				for {
					select {
					case <-done:
						return
					default:
						m := alice.post(t, "x")
						mu.Lock()
						created = append(created, m.Id)
						mu.Unlock()
					}
				}
			})
		}
		// Repeats until there are several pages, because the disk may be slow.
		for began, rounds := time.Now(), 0; ; rounds++ {
			mu.Lock()
			before := slices.Clone(created)
			mu.Unlock()
			if rounds >= 5 && len(before) >= 20 || time.Since(began) > patience {
				break
			}
			got := alice.pages(t, 7)
			once := map[string]bool{}
			for _, id := range got {
				if once[id] {
					t.Errorf("%s is there twice", id)
				}
				once[id] = true
			}
			for _, id := range before {
				if !once[id] {
					t.Errorf("%s was there before the first page and is on none", id)
				}
			}
			if !slices.IsSortedFunc(got, func(a, b string) int { return strings.Compare(b, a) }) {
				t.Errorf("not newest first: %v", got)
			}
			time.Sleep(20 * time.Millisecond)
		}
		close(done)
		writers.Wait()
		if all := alice.pages(t, 100); len(all) != len(created) || len(all) < 20 {
			t.Errorf("%d messages are there, %d were created", len(all), len(created))
		}
	})
}

// A cursor with any change is refused.
func TestAlteredCursors(t *testing.T) {
	r, _ := startMessages(t, StoreConfig{URL: "sqlite:" + t.TempDir() + "/test.db"})
	alice := r.as("alice", readAndWrite)
	alice.post(t, "1")
	alice.post(t, "2")
	cursor := *decode[gen.MessageList](t, alice.ask(t, "GET", messagesPath+"?limit=1", ""),
		200).Next
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	for i := range cursor {
		for _, c := range []byte(alphabet) {
			if altered := cursor[:i] + string(c) + cursor[i+1:]; altered != cursor {
				if id, err := readCursor(altered); err == nil {
					t.Errorf("%s, which was %s, is read as %s", altered, cursor, id)
				}
			}
		}
	}
	altered := cursor[:3] + "A" + cursor[4:]
	if altered == cursor {
		altered = cursor[:3] + "B" + cursor[4:]
	}
	wantRefusal(t, alice.ask(t, "GET", messagesPath+"?cursor="+altered, ""), http.StatusBadRequest,
		authz.InvalidParameter, "The query parameter cursor is not one that this API has given.")
	// A cursor of another caller gives no access to that caller's messages.
	if got := decode[gen.MessageList](t, r.as("bob", readAndWrite).ask(t, "GET",
		messagesPath+"?cursor="+cursor, ""), 200); len(
		got.Messages) != 0 {
		t.Errorf("with Alice's cursor, Bob gets %+v", got.Messages)
	}
}

func TestStoreUnavailable(t *testing.T) {
	line := cuttable(t, postgres(t))
	r, _ := startMessages(t, StoreConfig{URL: line.url, Timeout: time.Second})
	alice := r.as("alice", readAndWrite)
	m := alice.post(t, "x")
	at := messagesPath + "/" + m.Id
	line.cut()
	for _, request := range [][]string{{"GET", messagesPath, ""}, {"GET", at, ""},
		{"POST", messagesPath, `{"text":"x"}`}, {"PUT", at, `{"text":"x"}`}, {"DELETE", at, ""}} {
		got := alice.ask(t, request[0], request[1], request[2], "If-Match", "*", "Idempotency-Key",
			"k", "X-Request-Id", "lost-"+request[0])
		wantRefusal(t, got, http.StatusServiceUnavailable, authz.Unavailable,
			"The messages cannot be reached now. Try again later.")
		if got.header.Get("Retry-After") != "1" {
			t.Errorf("%v: Retry-After is %q", request, got.header.Get("Retry-After"))
		}
	}
	if entry := r.log.request(t, "lost-DELETE"); !strings.Contains(fmt.Sprint(entry["cause"]),
		"deleting a message: the database is unavailable: ") {
		t.Errorf("the log does not say what is wrong: %v", entry)
	}
	// An outage of the database affects all servers: none becomes unready, and operations without
	// messages work.
	eventually(t, "the server is ready",
		func() bool { return alice.running.ask(t, "GET", "/readyz").status == http.StatusOK })
	if got := alice.ask(t, "GET", "/api/private", ""); got.status != http.StatusOK {
		t.Errorf("GET /api/private is %d without a store, of which it needs nothing", got.status)
	}
	line.restore()
	eventually(t, "messages are served again",
		func() bool { return alice.ask(t, "GET", at, "").status == http.StatusOK })
	eventually(t, "the key of a request that failed is good", func() bool {
		return alice.ask(t, "POST", messagesPath, `{"text":"x"}`, "Idempotency-Key",
			"k").status == http.StatusCreated
	})
}

// For a fault of the store, the client gets a 500 without details.
func TestStoreIsFaulty(t *testing.T) {
	r, s := startMessages(t, StoreConfig{URL: "sqlite:" + t.TempDir() + "/test.db"})
	if _, err := s.write.Exec("DROP TABLE messages"); err != nil {
		t.Fatal(err)
	}
	got := r.as("alice", readAndWrite).ask(t, "GET", messagesPath, "", "X-Request-Id", "faulty")
	wantRefusal(t, got, http.StatusInternalServerError, authz.Internal,
		"The fault is the server's and has been logged.")
	if cause := fmt.Sprint(r.log.request(t, "faulty")["cause"]); !strings.Contains(cause,
		"listing messages: ") ||
		!strings.Contains(cause, "no such table") {
		t.Errorf("cause is %s", cause)
	}
}

func TestGeneratedClientKeepsMessages(t *testing.T) {
	r, _ := startMessages(t, StoreConfig{URL: "sqlite:" + t.TempDir() + "/test.db"})
	api, err := apiclient.NewClientWithResponses(
		r.url,
		apiclient.WithRequestEditorFn(func(_ context.Context, request *http.Request) error {
			request.Header.Set("Authorization", "Bearer "+r.as("alice", readAndWrite).token)
			return nil
		}),
	)
	if err != nil {
		t.Fatal(err)
	}
	key := "k"
	created, err := api.CreateMessageWithResponse(t.Context(),
		&apiclient.CreateMessageParams{IdempotencyKey: &key}, apiclient.MessageText{Text: "Hello"})
	if err != nil || created.JSON201 == nil {
		t.Fatalf("%v, %s", err, created.Body)
	}
	etag := created.Headers201.ETag
	put, err := api.ReplaceMessageWithResponse(t.Context(), created.JSON201.Id,
		&apiclient.ReplaceMessageParams{IfMatch: etag}, apiclient.MessageText{Text: "Hello, again"})
	if err != nil || put.JSON200 == nil || put.JSON200.Text != "Hello, again" {
		t.Fatalf("%v, %s", err, put.Body)
	}
	limit := 1
	list, err := api.ListMessagesWithResponse(t.Context(),
		&apiclient.ListMessagesParams{Limit: &limit})
	if err != nil || list.JSON200 == nil || list.JSON200.Messages[0] != *put.JSON200 {
		t.Fatalf("%v, %s", err, list.Body)
	}
	late, err := api.DeleteMessageWithResponse(t.Context(), created.JSON201.Id,
		&apiclient.DeleteMessageParams{IfMatch: etag})
	if err != nil || late.ApplicationproblemJSON412 == nil {
		t.Fatalf("%v, %s", err, late.Body)
	}
}

// failing is a store whose methods fail with err.
type failing struct {
	MessageStore
	err error
}

func (f failing) Get(context.Context, Filter, string) (Message, error) { return Message{}, f.err }

// What the document shows of refusals is what the server answers, and its example of a cursor is
// one of a message.
func TestMessageExamples(t *testing.T) {
	document, err := gen.GetSpec()
	if err != nil {
		t.Fatal(err)
	}
	r, _ := startMessages(t, StoreConfig{URL: "sqlite:" + t.TempDir() + "/test.db"})
	alice := r.as("alice", readAndWrite)
	at := messagesPath + "/" + alice.post(t, "x").Id
	lost := start(t,
		withHandlers(Handlers{Messages: failing{err: errUnavailable}})).as("alice", readAndWrite)
	alice.ask(t, "POST", messagesPath, `{"text":"x"}`, "Idempotency-Key", "k")
	for response, got := range map[string]answer{
		"NotFound":             alice.ask(t, "GET", messagesPath+"/019ad7c8-09b3-7204-bf92-a8cef806518f", ""),
		"PreconditionFailed":   alice.ask(t, "DELETE", at, "", "If-Match", `"2"`),
		"IdempotencyKeyReused": alice.ask(t, "POST", messagesPath, `{"text":"y"}`, "Idempotency-Key", "k"),
		"Unavailable":          lost.ask(t, "GET", at, ""),
	} {
		for name, example := range document.Components.Responses[response].Value.
			Content["application/problem+json"].Examples {
			if want := canonical(t, example.Value.Value); canonical(t,
				json.RawMessage(got.body)) != want {
				t.Errorf("%s: the server answers\n%s, the document's example %s is\n%s", response,
					got.body, name, want)
			}
		}
	}
	schemas := document.Components.Schemas
	id := schemas["MessageID"].Value.Example.(string)
	if got, err := readCursor(schemas["Cursor"].Value.Example.(string)); err != nil || got != id {
		t.Errorf("the example of a cursor is read as %s, %v, want %s", got, err, id)
	}
	if got, want := (Message{ID: id}).Created().Format(
		time.RFC3339Nano),
		schemas["Message"].Value.Properties["created"].Value.Example; got != want {
		t.Errorf("the example of an id is of %s, that of created is %s", got, want)
	}
}

// If the document admits callers without a token, they own no messages.
func TestWithoutPrincipal(t *testing.T) {
	h := Handlers{Messages: failing{}} // which would panic
	tag := "*"
	for name, call := range map[string]func() (any, error){
		"list":   func() (any, error) { return h.ListMessages(t.Context(), gen.ListMessagesRequestObject{}) },
		"create": func() (any, error) { return h.CreateMessage(t.Context(), gen.CreateMessageRequestObject{}) },
		"get":    func() (any, error) { return h.GetMessage(t.Context(), gen.GetMessageRequestObject{}) },
		"replace": func() (any, error) {
			return h.ReplaceMessage(t.Context(),
				gen.ReplaceMessageRequestObject{Params: gen.ReplaceMessageParams{IfMatch: tag}})
		},
		"delete": func() (any, error) {
			return h.DeleteMessage(t.Context(),
				gen.DeleteMessageRequestObject{Params: gen.DeleteMessageParams{IfMatch: tag}})
		},
	} {
		if answer, err := call(); answer != nil || err == nil {
			t.Errorf("%s without a principal: %v, %v", name, answer, err)
		}
	}
}

// TestPublicPath: behind a proxy that changes the prefix of the paths, all URLs in responses have
// the prefix for clients.
func TestPublicPath(t *testing.T) {
	for _, test := range []struct{ base, public, resource, here, there string }{
		{"", "", "https://api.example", "", ""},
		{"/v1", "", "https://api.example", "/v1", "/v1"},
		{"/inside", "/v1", "https://api.example", "/inside", "/v1"},
		{"/inside", "/", "https://api.example", "/inside", ""},
		{"", "/v1", "https://api.example/v1", "", "/v1"},
	} {
		store := open(t, StoreConfig{URL: "sqlite:" + t.TempDir() + "/messages.db"})
		r := start(t, func(c *server.Config) {
			withHandlers(Handlers{Messages: store})(c)
			c.Resource, c.Docs = test.resource, true
			c.Gate = func(c *authz.Config) { c.BasePath, c.PublicPath = test.base, test.public }
		})
		alice := r.as("alice", readAndWrite)
		for range 2 {
			got := alice.ask(t, "POST", test.here+messagesPath, `{"text":"Hello"}`)
			if at := got.header.Get("Location"); !strings.HasPrefix(at,
				test.there+messagesPath+"/") {
				t.Errorf("%+v: Location is %q", test, at)
			}
		}
		link := alice.ask(t, "GET", test.here+messagesPath+"?limit=1", "").header.Get("Link")
		if !strings.HasPrefix(link, "<"+test.there+messagesPath+"?") {
			t.Errorf("%+v: Link is %q", test, link)
		}
		api := strings.TrimSuffix(test.resource, test.there) + test.there
		if docs := r.ask(t, "GET", "/docs/openapi.json").body; !strings.Contains(docs,
			`"servers":[{"url":"`+api+`"}]`) {
			t.Errorf("%+v: the served document does not say that the API is at %s", test, api)
		}
		at, _ := url.Parse(test.resource)
		known := "/.well-known/oauth-protected-resource" + at.Path
		if told := r.ask(t, "GET", known).body; !strings.Contains(told,
			`"resource":"`+test.resource+`"`) {
			t.Errorf("%+v: the metadata at %s is %s", test, known, told)
		}
	}
}
