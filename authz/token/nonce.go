package token

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"time"
)

// nonces issues and checks nonces (RFC 9449 §9) without state: a nonce is a MAC over the number of
// its period, the same for all clients. It is valid in its period and the next, and, for servers
// whose clocks differ, in the previous one.
type nonces struct {
	key    []byte
	period time.Duration
}

func (n *nonces) current(now time.Time) string { return n.of(now.UnixNano() / int64(n.period)) }

func (n *nonces) of(period int64) string {
	mac := hmac.New(sha256.New, n.key)
	mac.Write(binary.BigEndian.AppendUint64([]byte("oasgate DPoP nonce"), uint64(period)))
	return encode(mac.Sum(nil)[:16])
}

// end returns when a nonce ends, if it is valid now.
func (n *nonces) end(nonce []byte, now time.Time) (time.Time, bool) {
	this := now.UnixNano() / int64(n.period)
	for period := this - 1; period <= this+1; period++ {
		if hmac.Equal(nonce, []byte(n.of(period))) {
			return time.Unix(0, (period+2)*int64(n.period)), true
		}
	}
	return time.Time{}, false
}
