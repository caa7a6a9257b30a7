// The component that uses the C library (libnats). The library calls back from its own threads, so each event is printed under a lock.
#include <nats/nats.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define WORDS_MAX 8
#define SUBSCRIPTIONS_MAX 256
#define LINE_BYTES_MAX 65536

static natsConnection *connection;
static struct {
    char *name;
    natsSubscription *handle;
} subscriptions[SUBSCRIPTIONS_MAX];
static int subscription_count;

static void say(const char *format, ...) {
    va_list words;
    va_start(words, format);
    flockfile(stdout);
    vprintf(format, words);
    putchar('\n');
    fflush(stdout);
    funlockfile(stdout);
    va_end(words);
}

static void check(natsStatus status) {
    if (status != NATS_OK) say("error %s", natsStatus_GetText(status));
}

static void on_disconnected(natsConnection *c, void *closure) { say("disconnected"); }
static void on_reconnected(natsConnection *c, void *closure) { say("reconnected"); }
static void on_closed(natsConnection *c, void *closure) { say("closed"); }
static void on_error(natsConnection *c, natsSubscription *s, natsStatus status, void *closure) { check(status); }

static void on_message(natsConnection *c, natsSubscription *s, natsMsg *message, void *name) {
    say("msg %s %s %.*s", (char *)name, natsMsg_GetSubject(message), natsMsg_GetDataLength(message),
        natsMsg_GetData(message));
    natsMsg_Destroy(message);
}

static void on_request(natsConnection *c, natsSubscription *s, natsMsg *message, void *prefix) {
    char answer[LINE_BYTES_MAX];
    snprintf(answer, sizeof answer, "%s%.*s", (char *)prefix, natsMsg_GetDataLength(message), natsMsg_GetData(message));
    check(natsConnection_PublishString(c, natsMsg_GetReply(message), answer));
    check(natsConnection_Flush(c));
    natsMsg_Destroy(message);
}

static const char *option(char **words, const char *name) {
    size_t length = strlen(name);
    for (; *words; words++)
        if (strncmp(*words, name, length) == 0 && (*words)[length] == '=') return *words + length + 1;
    return NULL;
}

static void set_credentials(natsOptions *options, char **words) {
    const char *ca = option(words, "ca"), *cert = option(words, "cert");
    const char *nkey = option(words, "nkey"), *creds = option(words, "creds");
    if (ca) {
        check(natsOptions_SetSecure(options, true));
        check(natsOptions_LoadCATrustedCertificates(options, ca));
    }
    if (cert) check(natsOptions_LoadCertificatesChain(options, cert, option(words, "key")));
    if (nkey) check(natsOptions_SetNKeyFromSeed(options, nkey, option(words, "seed")));
    if (creds) check(natsOptions_SetUserCredentialsFromFiles(options, creds, NULL));
}

static void connect_to(char **words) {
    natsOptions *options = NULL;
    check(natsOptions_Create(&options));
    check(natsOptions_SetURL(options, words[0]));
    set_credentials(options, words + 1);
    check(natsOptions_SetDisconnectedCB(options, on_disconnected, NULL));
    check(natsOptions_SetReconnectedCB(options, on_reconnected, NULL));
    check(natsOptions_SetClosedCB(options, on_closed, NULL));
    check(natsOptions_SetErrorHandler(options, on_error, NULL));
    natsStatus status = natsConnection_Connect(&connection, options);
    natsOptions_Destroy(options);
    if (status == NATS_OK)
        say("connected");
    else
        check(status);
}

static void subscribe(const char *name, const char *subject, const char *queue) {
    char *kept = strdup(name);
    natsSubscription **handle = &subscriptions[subscription_count].handle;
    subscriptions[subscription_count++].name = kept;
    check(queue ? natsConnection_QueueSubscribe(handle, connection, subject, queue, on_message, kept)
                : natsConnection_Subscribe(handle, connection, subject, on_message, kept));
}

static void unsubscribe(const char *name, const char *max) {
    for (int i = 0; i < subscription_count; i++)
        if (strcmp(subscriptions[i].name, name) == 0)
            check(max ? natsSubscription_AutoUnsubscribe(subscriptions[i].handle, atoi(max))
                      : natsSubscription_Unsubscribe(subscriptions[i].handle));
}

static void answer(const char *subject, const char *prefix) {
    check(natsConnection_Subscribe(&subscriptions[subscription_count].handle, connection, subject, on_request,
                                   strdup(prefix)));
    subscriptions[subscription_count++].name = "";
}

static void request(const char *subject, const char *payload) {
    natsMsg *reply = NULL;
    natsStatus status = natsConnection_RequestString(&reply, connection, subject, payload, 10000);
    if (status == NATS_OK)
        say("reply %.*s", natsMsg_GetDataLength(reply), natsMsg_GetData(reply));
    else
        check(status);
    natsMsg_Destroy(reply);
}

struct burst {
    char *subject, *prefix;
    int count;
    double rate;
};

static void *run_burst(void *argument) {
    struct burst *burst = argument;
    struct timespec pause = {0, 1000000000.0 / burst->rate};
    char payload[256];
    for (int i = 1; i <= burst->count; i++) {
        snprintf(payload, sizeof payload, "%s%d", burst->prefix, i);
        check(natsConnection_PublishString(connection, burst->subject, payload));
        nanosleep(&pause, NULL);
    }
    say("burst-done %d", burst->count);
    return NULL;
}

static void start_burst(char **words) {
    struct burst *burst = malloc(sizeof *burst);
    pthread_t thread;
    *burst = (struct burst){strdup(words[1]), strdup(words[2]), atoi(words[3]), atof(words[4])};
    pthread_create(&thread, NULL, run_burst, burst);
    pthread_detach(thread);
}

int main(void) {
    static char line[LINE_BYTES_MAX];
    while (fgets(line, sizeof line, stdin)) {
        char *words[WORDS_MAX + 1] = {0};
        int count = 0;
        for (char *word = strtok(line, " \n"); word && count < WORDS_MAX; word = strtok(NULL, " \n")) words[count++] = word;
        if (count == 0) continue;
        if (!strcmp(words[0], "connect")) connect_to(words + 1);
        else if (!strcmp(words[0], "sub")) subscribe(words[1], words[2], words[3]);
        else if (!strcmp(words[0], "unsub")) unsubscribe(words[1], words[2]);
        else if (!strcmp(words[0], "answer")) answer(words[1], words[2]);
        else if (!strcmp(words[0], "pub")) check(natsConnection_PublishString(connection, words[1], words[2]));
        else if (!strcmp(words[0], "request")) request(words[1], words[2]);
        else if (!strcmp(words[0], "burst")) start_burst(words);
        else if (!strcmp(words[0], "close")) natsConnection_Close(connection);
        else if (!strcmp(words[0], "flush")) {
            natsStatus status = natsConnection_FlushTimeout(connection, 30000);
            if (status == NATS_OK) say("flushed");
            else check(status);
        } else say("error unknown command %s", words[0]);
    }
    return 0;
}
