package client

import (
	"errors"
	"iter"
)

// Pages iterates over all items of a paginated list. It calls get with the cursor of each page, ""
// for the first one. get returns the cursor of the next page, or "" after the last one. An error of
// get ends the iteration.
func Pages[Item any](
	get func(cursor string) (items []Item, next string, err error),
) iter.Seq2[Item, error] {
	return func(yield func(Item, error) bool) {
		var none Item
		for cursor := ""; ; {
			items, next, err := get(cursor)
			if err == nil && next != "" && next == cursor {
				err = errors.New("client: the cursor of the next page is that of the current page")
			}
			if err != nil {
				yield(none, err)
				return
			}
			for _, item := range items {
				if !yield(item, nil) {
					return
				}
			}
			if cursor = next; cursor == "" {
				return
			}
		}
	}
}
