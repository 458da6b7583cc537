"""Users and artworks: what each is, and the tables that describe them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from seeder.columns import lists, pick, texts, timestamps
from seeder.plan import ARTWORK_HISTORY_DAYS, DAY, HOUR, MINUTE, USER_HISTORY_DAYS, draw, shuffle, zipf

if TYPE_CHECKING:
    from collections.abc import Callable

    from seeder.plan import Array, Plan

FIRST_USER_ID, FIRST_ARTWORK_ID, FIRST_TACK_ID = 10_001, 5_000_001, 301
FIRST_MODEL_ID = 1_648_918_127_446_573_124  # beyond 2**53: a float on the way would show
MODEL_TYPES = ("SDXL_MODEL", "SDXL_MODEL", "DIT_MODEL", "FLUX_MODEL", "SDXL_MODEL", "DIT_MODEL", "SDXL_MODEL")
SIZES = ((512, 768), (768, 1280), (1024, 1024), (832, 1216), (1280, 768))
MODELS, TACKS = 400, 1_500


def artwork_created(plan: Plan, artworks: Array) -> Array:
    """When each artwork was created: in the order of the ids."""
    step = plan.artwork_step_us
    first = plan.first_us - ARTWORK_HISTORY_DAYS * DAY
    return first + ((artworks + draw(plan, "artwork.created", artworks)) * step).astype(np.int64)


def is_animated(plan: Plan, artworks: Array) -> Array:
    """Whether the artwork is an `ANIMATED_ARTWORK`."""
    animated: Array = draw(plan, "artwork.type", artworks) < 0.06
    return animated


def author_id(plan: Plan, artworks: Array) -> Array:
    """Authors are users, and the busiest users publish most."""
    ranks = zipf(draw(plan, "artwork.author", artworks), plan.users, 0.8)
    return FIRST_USER_ID + shuffle(ranks, plan.users)


def user_registered(plan: Plan, users: Array) -> Array:
    """Long before the feed, but for one user in fifty, who registers while it runs."""
    at = draw(plan, "user.registered", users)
    during = draw(plan, "user.new", users) < 0.02
    early = plan.first_us - (USER_HISTORY_DAYS * DAY * (1.0 - at)).astype(np.int64)
    return np.where(during, plan.first_us + (at * plan.days * DAY).astype(np.int64), early)


def versions(
    plan: Plan, table: str, entities: Array, shares: tuple[float, ...]
) -> tuple[Array, Array, Array]:
    """(entity, version number, key) of each row: version `n` exists for the n-th share of the entities."""
    u = draw(plan, f"{table}.versions", entities)
    counts = 1 + sum((u < share).astype(np.int64) for share in shares)
    entity = np.repeat(entities, counts)
    number = np.arange(len(entity)) - np.repeat(np.cumsum(counts) - counts, counts)
    return entity, number, entity * 8 + number


def changed_at(plan: Plan, table: str, first: Array, number: Array, key: Array) -> Array:
    """The first version's own time; later ones from a week before the feed to a day after its end."""
    span = (draw(plan, f"{table}.changed", key) * (plan.days + 8) * DAY).astype(np.int64)
    return np.where(number == 0, first, np.maximum(plan.first_us - 7 * DAY + span, first + MINUTE))


def user_profile(plan: Plan, users: Array) -> pa.Table:
    """Profile versions. Some become known hours or days after they were true, some correct an earlier one."""
    users = users[draw(plan, "profile.missing", users) >= 0.02]
    user, number, key = versions(plan, "profile", users, (0.40, 0.15, 0.04))
    updated = changed_at(plan, "profile", user_registered(plan, user) + MINUTE, number, key)
    correction = (number > 0) & (draw(plan, "profile.correction", key) < 0.15)
    updated[correction] = updated[np.flatnonzero(correction) - 1]
    lag = draw(plan, "profile.lag", key)
    late = (number > 0) & (draw(plan, "profile.late", key) < 0.25)
    ingested = updated + np.where(late, (HOUR + lag * 36 * HOUR), lag * MINUTE).astype(np.int64)
    ingested[correction] += HOUR
    counts = zipf(draw(plan, "profile.follows", key), 64, 0.7)
    flat = (
        np.repeat(key * 64, counts) + np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    )
    followed = FIRST_USER_ID + shuffle(
        zipf(draw(plan, "profile.followed", flat), plan.users, 0.8), plan.users
    )
    return pa.table(
        {
            "user_id": FIRST_USER_ID + user,
            "updated_at": timestamps(updated),
            "ingested_at": timestamps(ingested, draw(plan, "profile.ingested", key) < 0.01),
            "registered_at": timestamps(user_registered(plan, user)),
            "blur_nsfw": pa.array(draw(plan, "profile.blur", key) < 0.7),
            "show_nsfw": pa.array(
                draw(plan, "profile.show", key) < 0.3, mask=draw(plan, "p.null", key) < 0.02
            ),
            "safe_search": pa.array(draw(plan, "profile.safe", key) < 0.5),
            "followed_user_ids": lists(followed, counts, nulls=draw(plan, "profile.no_list", key) < 0.03),
        }
    )


def artwork_properties(plan: Plan, artworks: Array) -> pa.Table:
    """Versions of an artwork: moderation marks it, its author hides the prompts."""
    artworks = artworks[draw(plan, "properties.missing", artworks) >= 0.02]
    artwork, number, key = versions(plan, "properties", artworks, (0.30, 0.10))
    created = artwork_created(plan, artwork)
    kind = np.where(
        is_animated(plan, artwork), 2, (draw(plan, "artwork.kind", artwork) < 0.05).astype(np.int64)
    )
    hidden = draw(plan, "artwork.hidden", artwork) < 0.2
    return pa.table(
        {
            "artwork_id": FIRST_ARTWORK_ID + artwork,
            "updated_at": timestamps(changed_at(plan, "properties", created, number, key)),
            "created_at": timestamps(created),
            "author_id": author_id(plan, artwork),
            "hide_prompts": pa.array(hidden ^ (draw(plan, "properties.toggled", key) < 0.05)),
            "is_sensitive": pa.array((number > 0) & (draw(plan, "properties.sensitive", key) < 0.4)),
            "artwork_type": texts(kind, ("DEFAULT_ARTWORK", "MANGA_ARTWORK", "ANIMATED_ARTWORK")),
        }
    )


def artwork_generation(plan: Plan, artworks: Array) -> pa.Table:
    """How an artwork was made. Upstream tags each animated one SD_V1_MODEL, as it does the truly old ones."""
    artworks = artworks[draw(plan, "generation.missing", artworks) >= 0.03]
    artwork, number, key = versions(plan, "generation", artworks, (0.03,))
    model = shuffle(zipf(draw(plan, "generation.model", artwork), MODELS, 0.9), MODELS)
    old = is_animated(plan, artwork) | (model % 20 == 7)
    size = np.array(SIZES, dtype=np.int32)[pick(draw(plan, "generation.size", artwork), SIZES)]
    at = changed_at(plan, "generation", artwork_created(plan, artwork), number, key)
    return pa.table(
        {
            "artwork_id": FIRST_ARTWORK_ID + artwork,
            "updated_at_ms": at // 1_000,
            "model_id": pa.array(
                FIRST_MODEL_ID + model * 1_000_003, mask=draw(plan, "generation.upload", artwork) < 0.02
            ),
            "model_type": texts(np.where(old, len(MODEL_TYPES), model % 7), (*MODEL_TYPES, "SD_V1_MODEL")),
            "width": size[:, 0],
            "height": size[:, 1],
            "lightning": pa.array(draw(plan, "generation.lightning", artwork) < 0.15),
            "sampling_steps": pa.array(
                8 + zipf(draw(plan, "generation.steps", artwork), 43, 0.5).astype(np.int32),
                mask=draw(plan, "generation.no_steps", artwork) < 0.05,
            ),
        }
    )


def artwork_aesthetic(plan: Plan, artworks: Array) -> pa.Table:
    """Scores, some renewed; a few could not be computed."""
    artworks = artworks[draw(plan, "aesthetic.missing", artworks) >= 0.04]
    artwork, number, key = versions(plan, "aesthetic", artworks, (0.10,))
    created = artwork_created(plan, artwork)
    score = 2.5 + 4.0 * (draw(plan, "aesthetic.a", key) + draw(plan, "aesthetic.b", key)) / 2
    return pa.table(
        {
            "artwork_id": FIRST_ARTWORK_ID + artwork,
            "scored_at": timestamps(changed_at(plan, "aesthetic", created + 10 * MINUTE, number, key)),
            "aes_score": pa.array(score.astype(np.float32), mask=draw(plan, "aesthetic.null", key) < 0.01),
        }
    )


def artwork_tack(plan: Plan, artworks: Array) -> pa.Table:
    """The tacks (tags) of an artwork, one row each, no time; a list may be empty, NULL, or hold a NULL."""
    artwork = artworks[draw(plan, "tack.missing", artworks) >= 0.05]
    counts = (draw(plan, "tack.count", artwork) * 7).astype(np.int64)
    flat = (
        np.repeat(artwork * 8, counts)
        + np.arange(counts.sum())
        - np.repeat(np.cumsum(counts) - counts, counts)
    )
    tacks = FIRST_TACK_ID + shuffle(zipf(draw(plan, "tack.id", flat), TACKS, 0.9), TACKS)
    ids = lists(
        tacks,
        counts,
        nulls=draw(plan, "tack.no_list", artwork) < 0.02,
        null_values=draw(plan, "tack.null", flat) < 0.003,
    )
    return pa.table({"artwork_id": FIRST_ARTWORK_ID + artwork, "tack_ids": ids})


def artwork_vector(plan: Plan, artworks: Array) -> pa.Table:
    """Safety scores of the image and of the prompt, keyed `id`, as the vector service names it."""
    artworks = artworks[draw(plan, "vector.missing", artworks) >= 0.03]
    artwork, number, key = versions(plan, "vector", artworks, (0.05,))
    created = artwork_created(plan, artwork)
    return pa.table(
        {
            "id": FIRST_ARTWORK_ID + artwork,
            "scored_at": timestamps(changed_at(plan, "vector", created + 3 * MINUTE, number, key)),
            "media_safety_score": draw(plan, "vector.media", key) ** 3,
            "text_safety_score": pa.array(
                draw(plan, "vector.text", key) ** 4, mask=draw(plan, "vector.null", key) < 0.04
            ),
        }
    )


def vector_ids(plan: Plan) -> Array:
    """The artworks with a vector: most, or when the bound is lower, most of the popular and the newest."""
    everything = np.arange(plan.artworks)
    popular = shuffle(everything[: (plan.vectors + 1) // 2], plan.artworks)
    ranked = np.concatenate((popular, everything[::-1]))
    _, first = np.unique(ranked, return_index=True)
    chosen = np.sort(ranked[np.sort(first)[: plan.vectors]])
    return chosen[draw(plan, "embedding.missing", chosen) >= 0.03]


def siglip2_vectors(plan: Plan, artworks: Array) -> pa.Table:
    """Unit vectors in half precision, from a generator of the chunk's own."""
    first = int(artworks[0]) if len(artworks) else 0
    rng = np.random.default_rng([plan.seed, 2, first])
    raw = rng.standard_normal((len(artworks), plan.embedding_dim), dtype=np.float32)
    raw /= np.linalg.norm(raw, axis=1, keepdims=True)
    offsets = np.arange(0, raw.size + 1, plan.embedding_dim, dtype=np.int32)
    values = pa.array(raw.astype(np.float16).reshape(-1))
    return pa.table(
        {
            "id": FIRST_ARTWORK_ID + artworks,
            "image_embedding": pa.ListArray.from_arrays(pa.array(offsets), values),
        }
    )


ENTITY_TABLES: dict[str, tuple[Callable[[Plan, Array], pa.Table], str]] = {
    "user_profile": (user_profile, "users"),
    "artwork_properties": (artwork_properties, "artworks"),
    "artwork_generation": (artwork_generation, "artworks"),
    "artwork_aesthetic": (artwork_aesthetic, "artworks"),
    "artwork_tack": (artwork_tack, "artworks"),
    "artwork_vector": (artwork_vector, "artworks"),
}
