/*
 * Runs a fuzz target on files instead of under libFuzzer: corpora are replayed as ordinary tests.
 *
 * usage: fuzz_<name> FILE|FOLDER ...
 *
 * Each file of each folder (not of its subfolders) is given to LLVMFuzzerTestOneInput in a buffer
 * of exactly its size, so that the address sanitizer sees any byte read beyond. The empty input
 * is always given first. A folder that does not exist counts as empty. Exits 0 when all was read;
 * a failure of the target aborts, and the name of the last file is on standard error.
 */
#include <dirent.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static size_t replayed;

static int replay_file(const char *path, size_t size)
{
    fprintf(stderr, "replay %s\n", path);
    FILE *f = fopen(path, "rb");
    if (f == NULL) {
        fprintf(stderr, "%s: %s\n", path, strerror(errno));
        return 1;
    }
    uint8_t *data = malloc(size > 0 ? size : 1);
    int failed = data == NULL || fread(data, 1, size, f) != size;
    fclose(f);
    if (failed) {
        fprintf(stderr, "%s: could not be read whole\n", path);
    } else {
        LLVMFuzzerTestOneInput(data, size);
        replayed++;
    }
    free(data);
    return failed;
}

static int replay_folder(const char *path)
{
    struct dirent **entries;
    int n = scandir(path, &entries, NULL, alphasort);
    int failed = 0;

    for (int i = 0; i < n; i++) {
        char *file = NULL;
        struct stat st;
        if (asprintf(&file, "%s/%s", path, entries[i]->d_name) < 0) {
            file = NULL;
            failed = 1;
        } else if (stat(file, &st) == 0 && S_ISREG(st.st_mode)) {
            failed |= replay_file(file, (size_t)st.st_size);
        }
        free(file);
        free(entries[i]);
    }
    if (n >= 0)
        free(entries);
    return failed || n < 0;
}

int main(int argc, char **argv)
{
    int failed = 0;
    uint8_t *nothing = malloc(1);

    LLVMFuzzerTestOneInput(nothing, 0);
    free(nothing);
    for (int i = 1; i < argc; i++) {
        struct stat st;
        if (stat(argv[i], &st) != 0)
            continue;
        if (S_ISDIR(st.st_mode))
            failed |= replay_folder(argv[i]);
        else
            failed |= replay_file(argv[i], (size_t)st.st_size);
    }
    printf("%zu inputs replayed\n", replayed);
    return failed;
}
