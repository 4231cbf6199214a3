//go:build unix

package e2e

import (
	"crypto/rand"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib"

	"github.com/oasgate/oasgate/gen"
)

// onEachDatabase runs a test with an empty SQLite file, and with an empty PostgreSQL schema if
// there is a server.
func onEachDatabase(t *testing.T, test func(t *testing.T, database string)) {
	t.Run("sqlite", func(t *testing.T) {
		t.Parallel()
		test(t, "sqlite:"+filepath.Join(t.TempDir(), "test.db"))
	})
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		if testing.Short() {
			t.Skip("PostgreSQL is not tried with -short")
		}
		base := os.Getenv("OASGATE_TEST_DATABASE_URL")
		if base == "" {
			t.Skip(
				"OASGATE_TEST_DATABASE_URL is not set: no PostgreSQL to test with (. " +
					".ci/services; start_postgres)")
		}
		admin, err := sql.Open("pgx", base)
		if err != nil {
			t.Fatalf("OASGATE_TEST_DATABASE_URL: %v", err)
		}
		schema := "test_" + strings.ToLower(rand.Text())
		if _, err := admin.Exec("CREATE SCHEMA " + schema); err != nil {
			t.Fatalf("OASGATE_TEST_DATABASE_URL: %v", err)
		}
		t.Cleanup(func() {
			_, err := admin.Exec("DROP SCHEMA " + schema + " CASCADE")
			if err := errors.Join(err, admin.Close()); err != nil {
				t.Errorf("schema %s remains: %v", schema, err)
			}
		})
		u, err := url.Parse(base)
		if err != nil {
			t.Fatal(err)
		}
		query := u.Query()
		query.Set("search_path", schema)
		u.RawQuery = query.Encode()
		test(t, u.String())
	})
}

// author sends the requests of one subject. Unlike [process.ask], it returns an error if the server
// is gone.
type author struct {
	token string
	http  *http.Client
}

func newAuthor(token string) author {
	return author{
		token,
		&http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 8}, Timeout: patience},
	}
}

// ask sends a request to one of the servers, without a body if body is "". headers are name, value,
// name, value.
func (a author) ask(p *process, method, path, body string, headers ...string) (answer, error) {
	request, err := http.NewRequest(method, p.url+path, strings.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	request.Header.Set("Authorization", "Bearer "+a.token)
	request.Header.Set("Content-Type", "application/json")
	for pair := range slices.Chunk(headers, 2) {
		request.Header.Set(pair[0], pair[1])
	}
	response, err := a.http.Do(request)
	if err != nil {
		return answer{}, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	return answer{response.StatusCode, response.Header, string(text)}, err
}

// post creates a message under a key, and returns its id.
func (a author) post(p *process, text, key string) (id string, err error) {
	body, _ := json.Marshal(gen.MessageText{Text: text})
	got, err := a.ask(p, http.MethodPost, "/api/messages", string(body), "Idempotency-Key", key)
	if err != nil {
		return "", err
	}
	var m gen.Message
	if err := json.Unmarshal([]byte(got.body), &m); got.status != http.StatusCreated || err != nil {
		return "", fmt.Errorf("answered with %d %s", got.status, got.body)
	}
	return m.Id, nil
}

// list returns all texts by id, page after page. It fails if a message is on two pages.
func (a author) list(t *testing.T, p *process) map[string]string {
	t.Helper()
	all := map[string]string{}
	for cursor := ""; ; {
		got, err := a.ask(p, http.MethodGet, "/api/messages?limit=50"+cursor, "")
		var page gen.MessageList
		if err == nil {
			err = json.Unmarshal([]byte(got.body), &page)
		}
		if err != nil || got.status != http.StatusOK {
			t.Errorf("GET /api/messages: %d %s, %v", got.status, got.body, err)
			return nil
		}
		for _, m := range page.Messages {
			if _, twice := all[m.Id]; twice {
				t.Errorf("message %s is on two pages", m.Id)
			}
			all[m.Id] = m.Text
		}
		if page.Next == nil {
			return all
		}
		cursor = "&cursor=" + *page.Next
	}
}

// TestKilled: what a server has acknowledged is there after it was killed, and what it has not is
// there once when it is sent again.
func TestKilled(t *testing.T) {
	t.Parallel()
	onEachDatabase(t, func(t *testing.T, database string) {
		issuer := startIssuer(t)
		alice := newAuthor(
			issuer.mint(map[string]any{"sub": "alice", "scope": "read:messages write:messages"}))
		want := map[string]string{} // texts by id
		inDoubt := 0
		for round := range 3 {
			p := startServe(t, issuer, "OASGATE_DATABASE_URL="+database)
			if got := alice.list(t, p); !maps.Equal(got, want) {
				t.Fatalf("after %d kills there are %d messages, want %d, each once", round,
					len(got), len(want))
			}
			var mu sync.Mutex
			unanswered := map[string]bool{}
			var writers sync.WaitGroup
			for w := range 6 {
				writers.Go(func() {
					for i := 0; ; i++ {
						text := fmt.Sprintf("%d/%d/%d", round, w, i)
						id, err := alice.post(p, text, text)
						mu.Lock()
						if err != nil {
							unanswered[text] = true
							mu.Unlock()
							return
						}
						want[id] = text
						mu.Unlock()
					}
				})
			}
			enough := len(want) + 60
			eventually(t, "60 messages are acknowledged", func() bool {
				mu.Lock()
				defer mu.Unlock()
				return len(want) >= enough || len(unanswered) == 6
			})
			p.signal(t, syscall.SIGKILL)
			writers.Wait()
			p.ends(t)

			p = startServe(t, issuer, "OASGATE_DATABASE_URL="+database)
			got := alice.list(t, p)
			for id, text := range want {
				if got[id] != text {
					t.Errorf("round %d: message %s, %s, was acknowledged and is lost", round, id,
						text)
				}
			}
			inDoubt += len(got) - len(want) // they were written, but their responses were lost
			for text := range unanswered {
				id, err := alice.post(p, text, text)
				if err != nil {
					t.Errorf("round %d: %s is sent again: %v", round, text, err)
				}
				want[id] = text
			}
			if got := alice.list(t, p); !maps.Equal(got, want) {
				t.Errorf(
					"round %d: once all is acknowledged there are %d messages, want %d, each once",
					round, len(got), len(want))
			}
			p.signal(t, syscall.SIGKILL)
			p.ends(t)
		}
		t.Logf("%d messages; of %d of them nobody had been told when the server was killed",
			len(want), inDoubt)
	})
}

// TestTwoServers: two processes with one database act as one.
func TestTwoServers(t *testing.T) {
	t.Parallel()
	onEachDatabase(t, func(t *testing.T, database string) {
		issuer := startIssuer(t)
		alice := newAuthor(
			issuer.mint(map[string]any{"sub": "alice", "scope": "read:messages write:messages"}))
		servers := []*process{
			startServe(t, issuer, "OASGATE_DATABASE_URL="+database),
			startServe(t, issuer, "OASGATE_DATABASE_URL="+database),
		}
		var mu sync.Mutex
		want := map[string]string{}
		var working sync.WaitGroup

		// Each message is sent to both servers at once with one key. One server creates it, and
		// both return it.
		for w := range 3 {
			working.Go(func() {
				for i := range 15 {
					text := fmt.Sprintf("%d/%d", w, i)
					ids := make([]string, len(servers))
					var both sync.WaitGroup
					for s, server := range servers {
						both.Go(func() {
							id, err := alice.post(server, text, text)
							if err != nil {
								t.Errorf("server %d: %v", s, err)
							}
							ids[s] = id
						})
					}
					both.Wait()
					if ids[0] != ids[1] {
						t.Errorf("one key, two messages: %v", ids)
					}
					mu.Lock()
					want[ids[0]] = text
					mu.Unlock()
				}
			})
		}

		// Meanwhile both servers change one message.
		counter, err := alice.post(servers[0], "counter", "counter")
		if err != nil {
			t.Fatal(err)
		}
		var changes atomic.Int64
		for w := range 4 {
			working.Go(func() {
				server := servers[w%2]
				for range 10 {
					got, err := alice.ask(server, http.MethodGet, "/api/messages/"+counter, "")
					if err != nil || got.status != http.StatusOK {
						t.Errorf("%d %s, %v", got.status, got.body, err)
						return
					}
					got, err = alice.ask(server, http.MethodPut, "/api/messages/"+counter,
						`{"text":"counter"}`, "If-Match", got.header.Get("ETag"))
					switch {
					case err == nil && got.status == http.StatusOK:
						changes.Add(1)
					case err != nil || got.status != http.StatusPreconditionFailed:
						t.Errorf("%d %s, %v", got.status, got.body, err)
					}
				}
			})
		}

		// Both servers return all acknowledged changes.
		done := make(chan struct{})
		var reading sync.WaitGroup
		for _, server := range servers {
			reading.Go(func() {
				for {
					mu.Lock()
					before := maps.Clone(want)
					mu.Unlock()
					got := alice.list(t, server)
					for id, text := range before {
						if got[id] != text {
							t.Errorf("%s was acknowledged, and then was not there", text)
						}
					}
					select {
					case <-done:
						return
					case <-time.After(5 * time.Millisecond):
					}
				}
			})
		}
		working.Wait()
		close(done)
		reading.Wait()

		want[counter] = "counter"
		if len(want) != 46 {
			t.Errorf("%d messages were acknowledged, want 46", len(want))
		}
		for s, server := range servers {
			if got := alice.list(t, server); !maps.Equal(got, want) {
				t.Errorf("server %d has %d messages, want the %d that were acknowledged", s,
					len(got), len(want))
			}
			got, err := alice.ask(server, http.MethodGet, "/api/messages/"+counter, "")
			if tag := fmt.Sprintf(`"%d"`, 1+changes.Load()); err != nil ||
				got.header.Get("ETag") != tag {
				t.Errorf(
					"server %d: after %d changes that were acknowledged the ETag is %s, want %s (%v)",
					s, changes.Load(), got.header.Get("ETag"), tag, err)
			}
		}
	})
}

// The database of dev remains when it is started again in the same directory, regardless of the
// settings of serve.
func TestDevKeepsMessages(t *testing.T) {
	t.Parallel()
	p := start(
		t,
		invocation{
			args: []string{"dev", "--addr", "localhost:0"},
			env:  []string{"OASGATE_DATABASE_URL=postgres://production.invalid/app"},
		},
	)
	p.url = p.readBanner(t).api
	var id string
	eventually(t, "a message is created", func() (done bool) {
		var err error
		id, err = newAuthor(p.token(t, "--url", p.url)).post(p, "Hello", "k")
		return err == nil
	})
	p.signal(t, os.Interrupt)
	if code := p.ends(t); code != 0 {
		t.Errorf("dev exits with %d", code)
	}
	file := filepath.Join(p.command.Dir, "data", "dev.db")
	if _, err := os.Stat(file); err != nil {
		t.Fatalf("dev keeps messages elsewhere than in data/dev.db: %v", err)
	}
	// The port is not the same, and so the issuer is another: it is an operator who finds the
	// message.
	p = start(t,
		invocation{args: []string{"dev", "--addr", "localhost:0", "--database", "sqlite:" + file}})
	p.url = p.readBanner(t).api
	if got := newAuthor(p.token(t, "--url", p.url)).list(t, p); !maps.Equal(got,
		map[string]string{id: "Hello"}) {
		t.Errorf("dev, started again, has %v", got)
	}
}

func TestUnreachableDatabase(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, database string
		code           int
		says           []string
	}{
		{"unknown kind", "mysql://user:hunter2@db.example/app", 2, []string{"OASGATE_DATABASE_URL is ", "expected sqlite:"}},
		{"password with an at sign", "postgres://user:p@hunter2@db.example/app", 2, []string{"OASGATE_DATABASE_URL is ", "%40"}},
		{"nobody there", "postgres://user:hunter2@127.0.0.1:1/app", 1, []string{"postgres://127.0.0.1:1/app", "refused"}},
		{"a file in the way", "sqlite:/dev/null/oasgate.db", 1, []string{"sqlite:/dev/null/oasgate.db"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := start(
				t,
				invocation{args: []string{"serve", "--addr", "127.0.0.1:0"}, env: []string{
					"OASGATE_ISSUER=https://issuer.example/", "OASGATE_AUDIENCE=a", "OASGATE_DATABASE_URL=" + test.database}},
			)
			if code := p.ends(t); code != test.code {
				t.Errorf("serve exits with %d, want %d", code, test.code)
			}
			said := p.stdout.String() + p.stderr.String()
			for _, part := range test.says {
				if !strings.Contains(said, part) {
					t.Errorf("serve says\n%s without %q", said, part)
				}
			}
			if strings.Contains(said, "hunter2") {
				t.Errorf("serve tells the database's password")
			}
		})
	}
}
