package com.example.mailing;

import com.example.mailing.v1.ImportClientsRequest;
import java.util.function.LongConsumer;

/**
 * Options of an import.
 *
 * @param request the update mask and the flags of the import; its clients are ignored
 * @param progress called with the number of clients sent so far, after each message of the stream
 */
public record ImportOptions(ImportClientsRequest request, LongConsumer progress) {
  /** An import that changes in each client what its row sets, and tells nobody how far it is. */
  public static final ImportOptions DEFAULT = new ImportOptions(ImportClientsRequest.getDefaultInstance(), sent -> {});
}
