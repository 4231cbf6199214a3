package server

import (
	"net/http"
	"net/netip"
	"testing"
)

func TestRemoteIP(t *testing.T) {
	proxies := []netip.Prefix{
		netip.MustParsePrefix("10.0.0.0/8"),
		netip.MustParsePrefix("fd00::/8"),
	}
	for _, test := range []struct {
		name, peer string
		forwarded  []string
		want       string
	}{
		{"no header", "10.0.0.1:80", nil, "10.0.0.1"},
		{"IPv6", "[2001:db8::1]:80", nil, "2001:db8::1"},
		{"IPv6 with a zone", "[fe80::1%eth0]:80", nil, "fe80::1"},
		{"no IP connection", "@", []string{"192.0.2.1"}, ""},
		{"peer is not trusted", "192.0.2.9:80", []string{"192.0.2.1"}, "192.0.2.9"},
		{"peer is trusted", "10.0.0.1:80", []string{"192.0.2.1"}, "192.0.2.1"},
		{"peer is trusted, IPv6", "[fd00::1]:80", []string{"2001:db8::1"}, "2001:db8::1"},
		{"peer is trusted, IPv4 in IPv6", "[::ffff:10.0.0.1]:80", []string{"192.0.2.1"}, "192.0.2.1"},
		{"rightmost that is not trusted", "10.0.0.1:80", []string{"6.6.6.6, 192.0.2.1,10.0.0.2"}, "192.0.2.1"},
		{"several headers", "10.0.0.1:80", []string{"6.6.6.6", "192.0.2.1", "10.0.0.2"}, "192.0.2.1"},
		{"all are trusted", "10.0.0.1:80", []string{"10.0.0.3, 10.0.0.2"}, "10.0.0.3"},
		{"brackets", "10.0.0.1:80", []string{"[2001:db8::1]"}, "2001:db8::1"},
		{"a port", "10.0.0.1:80", []string{"192.0.2.1:80"}, "10.0.0.1"},
		{"a zone", "10.0.0.1:80", []string{"fe80::1%eth0"}, "10.0.0.1"},
		{"empty", "10.0.0.1:80", []string{""}, "10.0.0.1"},
		{"garbage to the right", "10.0.0.1:80", []string{"192.0.2.1, x"}, "10.0.0.1"},
		{"garbage to the left is not looked at", "10.0.0.1:80", []string{"x, 192.0.2.1"}, "192.0.2.1"},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := &http.Request{
				RemoteAddr: test.peer,
				Header:     http.Header{"X-Forwarded-For": test.forwarded},
			}
			if got := remoteIP(r, proxies); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}
