package token

import (
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
)

func TestLRU(t *testing.T) {
	var removed []string
	c := &lru[string, string]{
		limit:   10,
		weigh:   func(value string) int64 { return int64(len(value)) },
		removed: func(value string) { removed = append(removed, value) },
	}
	has := func(key, want string) {
		t.Helper()
		if got, found := c.get(key); got != want || found != (want != "") {
			t.Errorf("%s is %q, %v, expected %q", key, got, found, want)
		}
	}
	c.set("a", "aaaa")
	c.set("b", "bbbb")
	has("a", "aaaa")
	c.set("c", "cc")
	c.set("d", "d") // b was not used for the longest time
	has("b", "")
	has("a", "aaaa")
	has("c", "cc")
	c.set("a", "A")
	has("a", "A")
	c.remove("c")
	c.remove("c")
	has("c", "")
	c.set("e", "more than ten")
	has("e", "")
	c.set("d", "more than ten") // and the earlier value is no longer valid
	has("d", "")
	if want := []string{"bbbb", "aaaa", "cc", "d"}; !slices.Equal(removed, want) {
		t.Errorf("removed %q, expected %q", removed, want)
	}
	if entries, weight := c.size(); entries != 1 || weight != 1 {
		t.Errorf("%d entries weigh %d, expected 1 and 1", entries, weight)
	}
	if got := c.values(); !slices.Equal(got, []string{"A"}) {
		t.Errorf("the values are %q", got)
	}
}

// The weight is that of the entries, and within the limit, whatever is done at the same time.
func TestLRUConcurrently(t *testing.T) {
	const limit = 100
	c := &lru[int, int64]{limit: limit, weigh: func(value int64) int64 { return value }}
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			for range 5000 {
				key, value := rand.IntN(50), rand.Int64N(2*limit)
				switch rand.IntN(3) {
				case 0:
					c.set(key, value)
				case 1:
					c.remove(key)
				default:
					c.get(key)
				}
				if _, weight := c.size(); weight > limit {
					t.Errorf("the weight is %d, the limit %d", weight, limit)
				}
			}
		})
	}
	group.Wait()
	var sum int64
	for _, value := range c.values() {
		sum += value
	}
	if entries, weight := c.size(); weight != sum || entries != len(c.values()) {
		t.Errorf("%d entries weigh %d, expected %d that weigh %d", entries, weight,
			len(c.values()), sum)
	}
}
