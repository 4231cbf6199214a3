// Pagination.

/** A page of a list: some items, and the cursor of the next page, if there is one. */
export interface Page<Item> {
  items: readonly Item[];
  next?: string | undefined;
}

/**
 * Iterates over all items of a list, page by page. `get` fetches the page of a cursor, or the first
 * page. An error that it throws ends the iteration.
 *
 *     for await (const message of paginate(async (cursor) => {
 *       const { data, error } = await api.GET("/api/messages", { params: { query: cursor ? { cursor } : {} } });
 *       if (error) throw new Error(error.title);
 *       return { items: data.messages, next: data.next };
 *     })) { … }
 */
export async function* paginate<Item>(get: (cursor: string | undefined) => Promise<Page<Item>>): AsyncGenerator<Item, void, undefined> {
  let cursor: string | undefined;
  do {
    const page = await get(cursor);
    yield* page.items;
    if (page.next !== undefined && page.next === cursor) {
      throw new Error("a page names itself as the next one");
    }
    cursor = page.next;
  } while (cursor !== undefined);
}
