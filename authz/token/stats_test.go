package token_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/oasgate/oasgate/authz/devissuer"
	"github.com/oasgate/oasgate/authz/token"
)

// TestStats: all events are counted. Junk is counted, but not logged.
func TestStats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSceneAt(t, "EdDSA", time.Now)
		v := s.verifier(t)
		if stats := v.Stats(); stats.Issuers[0].Keys != 0 || stats.Issuers[0].KeyAge != 0 {
			t.Errorf("before any fetch: %+v", stats.Issuers)
		}
		tok := s.genuine()
		accepted(t, v, tok)
		accepted(t, v, tok)
		accepted(t, v, tok)
		time.Sleep(time.Minute)
		s.Fail(devissuer.Fault{Endpoint: devissuer.KeySet, Status: 500})
		lines := len(s.log.String())
		for range 1000 {
			refused(
				t,
				v,
				s.SignBytes([]byte(s.header("kid", `"nope"`)), []byte(s.claims())),
				token.KeyPending,
			)
			refused(t, v, "junk", token.Malformed)
		}
		stats := v.Stats()
		if i := stats.Issuers[0]; i.URL != issuerURL || i.Fetched != 1 || i.Failed != 1 ||
			i.Keys != 1 ||
			i.KeyAge != time.Minute {
			t.Errorf("of the issuer: %+v", i)
		}
		if c := stats.Cache; c.Hits != 2 || c.Misses != 1001 || c.Tokens != 1 ||
			c.Bytes < uint64(len(tok)) {
			t.Errorf("of the cache: %+v", c)
		}
		if r := stats.Refused; r[token.KeyPending] != 1000 || r[token.Malformed] != 1000 ||
			r[token.Expired] != 0 {
			t.Errorf("of refusals: %v", r)
		}
		if more := s.log.String()[lines:]; len(more) > 400 {
			t.Errorf("junk filled the log:\n%s", more)
		}

		s.Fail(devissuer.Fault{Endpoint: devissuer.KeySet})
		config := s.config(s.policy)
		config.Predecessor = v
		next, err := token.NewVerifier(t.Context(), config)
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if after := next.Stats(); after.Cache.Hits != 2 || after.Issuers[0].Fetched != 2 {
			t.Errorf("after a reload: %+v", after)
		}
	})
}
