// What `power.c` does in the place of the system's calls: which files are watched, and names. Each
// change is recorded (power.h), then made.

#ifndef ENGINE_POWER_NAMES_H
#define ENGINE_POWER_NAMES_H

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>

#include "power.h"

#define DESCRIPTORS 65536

_Static_assert(__SIZEOF_POINTER__ == 8, "64 bits");
_Static_assert(sizeof(struct power_header) <= POWER_HEADER_BYTES, "it has room");
_Static_assert(sizeof(struct power_record) == 72, "as engine/faults/undo.py has it");

static uint64_t nodes[DESCRIPTORS];  // by descriptor: inodes of watched files that may be written

// --- what is watched -----------------------------------------------------------------------------

struct place {
    int fd;  // of the folder
    struct stat folder;
    const char *name;  // in it
    int itself;        // it is not watched, and the name is that of a watched folder
    char path[PATH_MAX];
};

static int below(const char *path) {
    for (const char *folder = power->folders; *folder; folder += strlen(folder) + 1) {
        size_t size = strlen(folder);
        if (strncmp(path, folder, size) == 0 && (path[size] == 0 || path[size] == '/'))
            return 1;
    }
    return 0;
}

static int path_of(int fd, char *path, size_t size) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    long got = SYSTEM(readlinkat, AT_FDCWD, link, path, size - 1);
    if (got < 0)
        return 0;
    path[got] = 0;
    return 1;
}

static int is_below(int fd) {
    char path[PATH_MAX];
    return path_of(fd, path, sizeof path) && below(path);
}

// Whether a path is directly or further below a watched folder; then `leave` is to be called.
static int find(int at, const char *path, struct place *place) {
    size_t size = path ? strlen(path) : 0;
    place->itself = 0;
    if (power == NULL || size == 0 || size >= PATH_MAX)
        return 0;
    char parent[PATH_MAX];
    while (size > 1 && path[size - 1] == '/')
        size--;
    size_t begin = size;
    while (begin > 0 && path[begin - 1] != '/')
        begin--;
    memcpy(parent, path, begin);
    strcpy(parent + begin, begin ? "" : ".");
    place->fd = (int)SYSTEM(openat, at, parent, O_PATH | O_DIRECTORY | O_CLOEXEC, 0);
    if (place->fd < 0 && (errno == EMFILE || errno == ENFILE))
        refuse("too many open files to see whether it is watched", path);
    if (place->fd < 0)
        return 0;
    if (fstat(place->fd, &place->folder) == 0 && place->folder.st_dev == power->device &&
        path_of(place->fd, place->path, sizeof place->path - NAME_MAX - 2)) {
        size_t folder = strlen(place->path);
        if (size - begin > NAME_MAX)
            size = begin + NAME_MAX;  // the system will say that it is too long
        place->path[folder] = '/';
        memcpy(place->path + folder + 1, path + begin, size - begin);
        place->path[folder + 1 + size - begin] = 0;
        place->name = place->path + folder + 1;
        place->path[folder] = 0;
        int watched = below(place->path);
        place->path[folder] = '/';
        if (watched)
            return 1;
        place->itself = below(place->path);
    }
    SYSTEM(close, place->fd);
    return 0;
}

static void leave(struct place *place) {
    int error = errno;
    SYSTEM(close, place->fd);
    errno = error;
}

static void note(int fd, uint64_t node) {
    if (fd >= DESCRIPTORS)
        refuse("too many open files", "a file");
    __atomic_store_n(&nodes[fd], node, __ATOMIC_RELEASE);
}

static void copied(int from, int to) {
    if (power != NULL && from >= 0 && from < DESCRIPTORS && to >= 0 && nodes[from] != 0)
        note(to, nodes[from]);
}

static int watched(int fd) {
    struct stat found;
    return power != NULL && fd >= 0 && fd < DESCRIPTORS && nodes[fd] != 0 &&
           fstat(fd, &found) == 0 && found.st_ino == nodes[fd] && found.st_dev == power->device;
}

// --- names ---------------------------------------------------------------------------------------

static struct power_record *named(enum power_kind kind, uint64_t node, struct place *one,
                                  struct place *two, const char *grave) {
    uint32_t first = (uint32_t)strlen(one->path), second = two ? (uint32_t)strlen(two->path) : 0;
    uint32_t third = grave ? (uint32_t)strlen(grave) : 0;
    struct power_record *record = draft(kind, first + second + third);
    char *to = (char *)(record + 1);
    record->node = node;
    record->folder = one->folder.st_ino;
    record->other = two ? two->folder.st_ino : 0;
    record->first = first, record->second = second, record->third = third;
    memcpy(to, one->path, first);
    if (two)
        memcpy(to + first, two->path, second);
    if (grave)
        memcpy(to + first + second, grave, third);
    return record;
}

// Keep what is about to lose its name; `grave` becomes its name in the graveyard.
static void bury(struct place *place, char *grave, size_t size) {
    char path[POWER_TEXT + 64];
    snprintf(grave, size, "%llx-%llx", (unsigned long long)place->folder.st_ino,
             (unsigned long long)power->tail);
    snprintf(path, sizeof path, "%s/%s", power->graveyard, grave);
    if (SYSTEM(linkat, place->fd, place->name, AT_FDCWD, path, 0) != 0)
        refuse("it cannot be linked into the graveyard before it is removed", place->path);
}

// The names of a folder are durable up to a place of the journal: who was removed before is gone.
static void forget(uint64_t folder, uint64_t until) {
    DIR *graves = opendir(power->graveyard);
    struct dirent *entry;
    if (graves == NULL)
        refuse("the graveyard cannot be read", power->graveyard);
    while ((entry = readdir(graves)) != NULL) {
        unsigned long long whose, when;
        if (sscanf(entry->d_name, "%llx-%llx", &whose, &when) == 2 && whose == folder &&
            when < until)
            SYSTEM(unlinkat, dirfd(graves), entry->d_name, 0);
    }
    closedir(graves);
}

static int remove_name(int at, const char *path, int flags) {
    struct place place;
    struct stat found;
    if (!find(at, path, &place)) {
        if (place.itself)
            refuse("a watched folder is removed itself", path);
        return (int)SYSTEM(unlinkat, at, path, flags);
    }
    lock();
    int result;
    char grave[64] = "";
    int folder = (flags & AT_REMOVEDIR) != 0;
    if (stat_of(place.fd, place.name, &found) != 0 || S_ISDIR(found.st_mode) != folder) {
        result = (int)SYSTEM(unlinkat, place.fd, place.name, flags);  // which fails
    } else {
        if (!folder)
            bury(&place, grave, sizeof grave);
        struct power_record *record =
            named(folder ? RMDIR : UNLINK, found.st_ino, &place, NULL, grave);
        record->at = found.st_mode & 07777;
        publish(record);
        result = (int)SYSTEM(unlinkat, place.fd, place.name, flags);
        end(record, result == 0);
    }
    unlock();
    leave(&place);
    return result;
}

static int rename_between(struct place *from, struct place *to, unsigned flags) {
    struct stat moved, there;
    char grave[64] = "";
    int exists = stat_of(to->fd, to->name, &there) == 0;
    if (stat_of(from->fd, from->name, &moved) != 0 || (exists && (flags & RENAME_NOREPLACE)) ||
        (exists && there.st_ino == moved.st_ino))
        return (int)SYSTEM(renameat2, from->fd, from->name, to->fd, to->name, flags);
    if (exists && S_ISDIR(there.st_mode))
        refuse("a rename that replaces a folder", to->path);
    if (exists)
        bury(to, grave, sizeof grave);
    struct power_record *record = named(RENAME, moved.st_ino, from, to, grave);
    publish(record);
    int result = (int)SYSTEM(renameat2, from->fd, from->name, to->fd, to->name, flags);
    end(record, result == 0);
    return result;
}

static int rename_name(int from_at, const char *from, int to_at, const char *to, unsigned flags) {
    struct place one, two;
    int first = find(from_at, from, &one), second = find(to_at, to, &two);
    if (one.itself || two.itself)
        refuse("a watched folder is renamed itself", from);
    if (!first && !second)
        return (int)SYSTEM(renameat2, from_at, from, to_at, to, flags);
    if (!first || !second)
        refuse("a rename across the border of what is watched: watch both folders", from);
    if (flags & ~(unsigned)RENAME_NOREPLACE)
        refuse("a rename with such flags", from);
    lock();
    int result = rename_between(&one, &two, flags);
    unlock();
    leave(&one);
    leave(&two);
    return result;
}

static int link_name(int from_at, const char *from, int to_at, const char *to, int flags) {
    struct place one, two;
    struct stat found;
    int first = find(from_at, from, &one), second = find(to_at, to, &two);
    if (!first && !second)
        return (int)SYSTEM(linkat, from_at, from, to_at, to, flags);
    if (!first || !second)
        refuse("a link across the border of what is watched: watch both folders", from);
    lock();
    int result;
    if (stat_of(one.fd, one.name, &found) != 0)
        result = (int)SYSTEM(linkat, one.fd, one.name, two.fd, two.name, 0);
    else {
        struct power_record *record = named(LINK, found.st_ino, &two, NULL, NULL);
        publish(record);
        result = (int)SYSTEM(linkat, one.fd, one.name, two.fd, two.name, 0);
        end(record, result == 0);
    }
    unlock();
    leave(&one);
    leave(&two);
    return result;
}

static int make_folder(int at, const char *path, mode_t mode) {
    struct place place;
    struct stat found;
    if (!find(at, path, &place))
        return (int)SYSTEM(mkdirat, at, path, mode);
    lock();
    struct power_record *record = named(MKDIR, 0, &place, NULL, NULL);
    if (stat_of(place.fd, place.name, &found) != 0)  // else it fails, and made nothing
        publish(record);
    int result = (int)SYSTEM(mkdirat, place.fd, place.name, mode);
    int error = errno;
    if (result == 0 && stat_of(place.fd, place.name, &found) == 0)
        record->node = found.st_ino;
    end(record, result == 0);
    unlock();
    leave(&place);
    errno = error;
    return result;
}

static int make_special(int at, const char *path, const char *what) {
    struct place place;
    if (find(at, path, &place))
        refuse(what, place.path);
    return 1;
}

#endif
