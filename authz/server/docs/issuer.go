package docs

import (
	"strings"
	"sync"
	"time"
)

// retryAfter is the least time between two questions to an issuer that does not answer: viewers can
// be many.
const retryAfter = 5 * time.Second

// issuer is an issuer, and its endpoints once they are known. They are asked for at the first view,
// so that a server whose page nobody opens asks nobody, and then kept: an issuer that changes them
// is one that the server is restarted for.
type issuer struct {
	Issuer
	mu     sync.Mutex // also held while asking: all who wait share the answer
	found  *endpoints
	failed time.Time
}

// endpoints are an issuer's.
type endpoints struct {
	Issuer
	authorize, token string // authorize may be ""
}

// endpoints returns those of every issuer of whom they are known, or can be had now, as they are to
// whoever came to base.
func (d *Docs) endpoints(base string) (found []endpoints) {
	var asking sync.WaitGroup
	for _, i := range d.issuers {
		asking.Go(func() { d.ask(i) })
	}
	asking.Wait()
	for _, i := range d.issuers {
		i.mu.Lock()
		if i.found != nil {
			e := *i.found
			e.authorize, e.token = d.near(base, e.authorize), d.near(base, e.token)
			found = append(found, e)
		}
		i.mu.Unlock()
	}
	return found
}

// near returns an endpoint that is below the resource as it is to whoever came to base: under dev
// the issuer is a part of this server, and a browser takes two names of one machine for two.
func (d *Docs) near(base, endpoint string) string {
	own := strings.TrimSuffix(d.config.Resource, "/") + "/"
	if path, ok := strings.CutPrefix(endpoint, own); ok {
		return base + "/" + path
	}
	return endpoint
}

// ask asks an issuer for its endpoints, unless they are known, or it has just been asked in vain.
func (d *Docs) ask(i *issuer) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.found != nil || !i.failed.IsZero() && d.config.Now().Sub(i.failed) < retryAfter {
		return
	}
	authorize, token, err := d.config.Discover(d.life, i.URL)
	if err != nil {
		// and not when it was asked: those who waited meanwhile would ask again, one after the
		// other
		i.failed = d.config.Now()
		d.config.Logger.Warn("the docs page cannot offer to get a token: the issuer's endpoints "+
			"could not be had", "issuer", i.URL, "cause", err.Error())
		return
	}
	i.found = &endpoints{Issuer: i.Issuer, authorize: authorize, token: token}
}
